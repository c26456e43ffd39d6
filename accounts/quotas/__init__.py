"""Lend units of quotas to gateways, so that quotas are counted exactly."""
