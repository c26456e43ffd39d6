"""One module for each way to compute SHAP values, and the table that chooses one."""
