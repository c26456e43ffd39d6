"""Answer what callers ask about themselves, and authenticate them for DRF."""
