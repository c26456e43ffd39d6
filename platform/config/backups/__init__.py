"""Copy an installation into one file while it runs, and back."""
