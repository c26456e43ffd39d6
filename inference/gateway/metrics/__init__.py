"""Count calls and engines, and write the counts as Prometheus text."""
