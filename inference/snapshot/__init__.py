"""What may be called, by whom and how: the file gateways live from, and look-ups."""
