"""Between what callers write and tensors, compiled from a version's signature."""
