"""From nothing to a demo that answers."""
