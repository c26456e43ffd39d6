"""The prediction paths as Django serves them: the same plan, driven synchronously."""
