"""What was answered, on disk before the answer leaves."""
