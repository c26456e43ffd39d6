"""What a worker does in its turn on a job."""
