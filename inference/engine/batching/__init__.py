"""Queue requests, form batches from them, and share the device between models."""
