"""Carry out what the plan of a call asks for: engines, leases, events, files."""
