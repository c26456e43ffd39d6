"""A page that calls a version with rows that a person gives, beside another version."""
