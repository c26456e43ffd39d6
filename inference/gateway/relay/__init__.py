"""Passes every other path on to the site."""
