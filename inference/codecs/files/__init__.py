"""Read rows from CSV, JSON Lines and NPY files."""
