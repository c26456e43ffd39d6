"""The one plan of a call, without I/O: who asks, what for, which version answers."""
