"""Signals by which accounts tells and asks the apps above it."""

from django.dispatch import Signal

# A key, customer or plan changed, and gateways must know. Sent inside the transaction
# that changes it, so that both happen or neither. `rows` are the keys, customers and
# plans that changed; without them, any may have changed.
access_changed = Signal()

# Which models are there? Each receiver returns their names.
model_names_wanted = Signal()
