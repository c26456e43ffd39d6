"""Speak MLflow's scoring protocol (`/invocations`)."""
