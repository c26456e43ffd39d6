"""Customers who call what is announced to end, and what they are told."""
