"""gRPC calls over `http2/`, and the service's methods."""
