"""Compute SHAP values: one module for each method, and the table of methods."""
