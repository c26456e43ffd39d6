"""Keep files that customers upload first and name in a request later."""
