"""What a version's page shows first, beside what holds of the default."""
