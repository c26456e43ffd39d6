"""Start the processes of one machine and keep them running."""
