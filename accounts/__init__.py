"""Customers, their plans and API keys, what they used, and what they may still use."""
