"""Health and metadata of the Open Inference Protocol."""
