"""The process that publishes snapshots, directs engines and records usage."""
