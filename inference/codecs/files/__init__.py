"""Rows from files (CSV, JSON Lines, NPY), and how a request names an uploaded one."""
