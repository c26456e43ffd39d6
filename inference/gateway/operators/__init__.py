"""Serve the operators' port: metrics and readiness of all gateways of a machine."""
