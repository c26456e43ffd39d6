"""What was asked for, what is loaded, and which version must leave."""
