"""Hold a process that runs its author's code within walls of the kernel."""
