"""One module for each kind of artifact, and the table that chooses one."""
