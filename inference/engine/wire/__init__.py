"""Define what crosses the engine's socket: messages, frames, tensors, errors."""
