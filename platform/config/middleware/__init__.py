"""What happens to every request of the site."""
