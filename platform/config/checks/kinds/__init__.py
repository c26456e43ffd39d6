"""One part of an installation each: what may be wrong with it, and how to find out."""
