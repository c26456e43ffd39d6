"""What carries out the effects of a plan: engines, leases, usage events, files."""
