"""Work on jobs: what a worker does in its turn."""
