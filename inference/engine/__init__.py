"""Load model versions, form batches of requests and run them, in one process."""
