"""One process that publishes snapshots, makes engines follow routes, ingests usage."""
