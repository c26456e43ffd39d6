"""Serve gRPC: its calls over HTTP/2, and the methods of its services."""
