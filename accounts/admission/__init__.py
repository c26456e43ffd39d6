"""Whether a call may go on: key, networks, rates, quotas, back-off; all in memory."""
