"""Explain predictions with SHAP values: a plug-in that the engine loads by name."""
