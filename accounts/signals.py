"""What accounts tells the apps above it."""

from django.dispatch import Signal

# A key, customer or plan changed in a way that gateways must learn of. Sent inside the
# transaction that changes it, so that both are seen or neither.
access_changed = Signal()
