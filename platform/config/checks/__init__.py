"""Say what is wrong with an installation, what it costs, and what mends it."""
