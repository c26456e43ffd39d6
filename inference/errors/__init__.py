"""Define error codes and facts, put them into words, and render them."""
