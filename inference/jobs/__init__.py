"""Predict many rows in the background; a job's database row is the truth."""
