"""Work on jobs: a worker's turn, its engines and its claim."""
