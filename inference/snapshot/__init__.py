"""Tell gateways what may be called, by whom and how: one file, and look-ups in it."""
