"""Requests wait in lanes, form batches and share the device."""
