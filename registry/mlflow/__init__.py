"""The only door to MLflow and its artifacts."""
