"""Models, versions and routes, synchronised from MLflow."""
