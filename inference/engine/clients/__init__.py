"""Call an engine from another process; one module for each kind of client."""
