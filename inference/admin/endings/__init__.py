"""The admin of announced ends: dates, what to use instead, and who still calls."""
