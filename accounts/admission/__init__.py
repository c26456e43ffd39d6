"""Decide in memory whether a call may go on: key, network, rates, quotas, back-off."""
