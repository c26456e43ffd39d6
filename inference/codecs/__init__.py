"""Convert requests to tensors and outputs to answers, compiled from a signature."""
