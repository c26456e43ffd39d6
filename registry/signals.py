"""What other apps may learn from the registry."""

from django.dispatch import Signal

# Sent inside the transaction of every change that gateways must learn of.
registry_changed = Signal()
