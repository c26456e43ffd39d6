"""Turn an empty folder into a demo that answers."""
