"""Middleware that every request to the site passes."""
