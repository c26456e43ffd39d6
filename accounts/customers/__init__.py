"""Change customers, members, plans and API keys."""
