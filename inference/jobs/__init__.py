"""Predictions over many rows in the background: a row of the database is the truth."""
