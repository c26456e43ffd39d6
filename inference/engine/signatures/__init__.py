"""What a version takes and gives, as plain data, and the checks against it."""
