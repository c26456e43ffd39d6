"""One process that answers calls: it drives the plan on an event loop."""
