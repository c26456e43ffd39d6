"""Record usage in the database once, add it up, read it back and price it."""
