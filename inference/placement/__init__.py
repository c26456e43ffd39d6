"""Which engine processes exist on which host, and which versions each holds."""
