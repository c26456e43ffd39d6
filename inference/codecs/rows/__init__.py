"""Rows: their types, how they are read and stacked into arrays, and what is wrong."""
