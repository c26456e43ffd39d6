"""What other apps may learn from the registry."""

from django.dispatch import Signal

# Sent inside the transaction of every change that gateways must learn of. `models` are
# the names of the models that changed; without them, every model may have.
registry_changed = Signal()
