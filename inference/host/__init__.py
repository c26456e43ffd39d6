"""PROCESS host: runs the engine processes of a machine, and reports on them."""
