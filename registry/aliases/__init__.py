"""Aliases of MLflow that follow the defaults of routes, and that lead them."""
