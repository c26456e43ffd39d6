"""Handle what concerns every request of the site."""
