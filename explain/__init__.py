"""SHAP explanations: a plug-in that the engine loads by name."""
