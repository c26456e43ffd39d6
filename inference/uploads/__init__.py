"""Files that customers send first and name later."""
