"""What callers say of answers: joined to the version, kept once, read."""
