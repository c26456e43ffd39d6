"""How other processes talk to an engine; one module for each kind of client."""
