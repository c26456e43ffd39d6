"""What callers ask about themselves, and the DRF classes that let them."""
