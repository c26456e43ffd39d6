"""Speak HTTP/1.1 with clients; nothing here knows of predictions."""
