"""What is counted of calls and engines, as Prometheus text."""
