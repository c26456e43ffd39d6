"""One process that loads versions, forms batches and runs them."""
