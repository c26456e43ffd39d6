"""One log line for each event, in all processes and within bounds."""
