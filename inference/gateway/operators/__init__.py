"""The operators' port: metrics, readiness, the sum over this machine's gateways."""
