"""What accounts tells the apps above it, and asks them."""

from django.dispatch import Signal

# A key, customer or plan changed in a way that gateways must learn of. Sent inside the
# transaction that changes it, so that both are seen or neither. `rows` are the keys,
# customers and plans that changed; without them, everything may have.
access_changed = Signal()

# Which models are there? Each receiver returns their names.
model_names_wanted = Signal()
