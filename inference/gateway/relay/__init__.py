"""Relay every other path to the site, and protect the site from slow clients."""
