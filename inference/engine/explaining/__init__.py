"""Load explainers as plug-ins, and show them a model."""
