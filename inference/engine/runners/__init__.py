"""Load and run one kind of artifact per module; a table chooses the kind."""
