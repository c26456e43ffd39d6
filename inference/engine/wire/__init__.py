"""Define and encode what crosses the engine's socket: messages, tensors, errors."""
