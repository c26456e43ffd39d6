"""Explainers as plug-ins, and a loaded version as they see it."""
