"""Queue requests, form batches of them, and share the device between models."""
