"""Keep files that customers upload first and name in a later request."""
