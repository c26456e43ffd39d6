"""Who pays, who signs in, what they may use, and their keys."""
