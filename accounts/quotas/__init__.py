"""Units of quotas, lent to whoever answers calls and counted exactly."""
