"""The only door to MLflow and to its artifacts."""
