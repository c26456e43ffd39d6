"""Usage in the database: recorded once, added up, read back, priced."""
