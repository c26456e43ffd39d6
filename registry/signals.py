"""The signal by which other apps learn that the registry changed."""

from django.dispatch import Signal

# Sent inside the transaction of every change that gateways must learn of. `models`
# holds the names of the changed models; without it, every model may have changed.
registry_changed = Signal()
