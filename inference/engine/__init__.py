"""The process that loads model versions, forms batches and runs them."""
