"""The process that answers clients, on one event loop."""
