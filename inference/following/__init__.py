"""Who follows models, and how people are told what happens to them."""
