"""Plan a call without I/O: caller, version, cost, answer, usage event."""
