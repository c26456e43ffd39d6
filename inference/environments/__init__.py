"""Python environments for versions that need other packages than are here."""
