"""HTTP/1.1 over httptools. Knows nothing of predictions."""
