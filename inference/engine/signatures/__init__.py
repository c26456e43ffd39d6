"""Describe what a version takes and gives, and check tensors against it."""
