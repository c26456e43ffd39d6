"""Load explainers as plug-ins, and let them call a model."""
