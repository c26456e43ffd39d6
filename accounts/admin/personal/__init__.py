"""The page where people of the staff make a key of their own, and keys for pages."""
