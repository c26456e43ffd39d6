"""HTTP/2 as far as gRPC needs it. Knows nothing of predictions."""
