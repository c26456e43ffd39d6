"""Buttons to follow a model, and to ask the administrators to trust it."""
