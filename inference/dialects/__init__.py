"""Read requests and write answers and errors of each protocol."""
