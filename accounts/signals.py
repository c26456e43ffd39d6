"""What other apps may hear of."""

from django.dispatch import Signal

# A key, customer or plan changed; sent inside the transaction that changes it.
access_changed = Signal()
