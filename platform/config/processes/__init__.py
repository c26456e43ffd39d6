"""The processes of one machine, and who keeps them running."""
