"""Describe a version's inputs and outputs, and check tensors against them."""
