"""Check rows against their types, and stack them into arrays."""
