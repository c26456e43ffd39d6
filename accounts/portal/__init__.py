"""The pages on which customers manage their keys and see their usage."""
