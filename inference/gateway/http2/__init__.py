"""Speak as much HTTP/2 as gRPC needs; nothing here knows of predictions."""
