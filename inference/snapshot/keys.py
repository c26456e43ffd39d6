"""Hold an API key in use, with the counts of its limits."""

from accounts.admission.admission import Admission
from accounts.admission.back_off import BackOff
from accounts.admission.key_admission import KeyAdmission
from accounts.admission.networks import Networks, SeenNetworks
from accounts.admission.refusal import LimitRefusal
from accounts.admission.shared_counts import CLOSED_UNTIL
from inference.snapshot.contents import AccessKey


class KeyEntry:
    """An API key in use, with its admission and back-off."""

    __slots__ = (
        "_compared_at",
        "admission",
        "back_off",
        "key",
        "models",
        "networks",
        "scopes",
        "seen_networks",
        "token",
    )

    def __init__(
        self,
        key: AccessKey,
        admission: Admission | KeyAdmission,
        back_off: BackOff | None = None,
    ) -> None:
        self.key = key
        self.admission = admission
        self.back_off = back_off
        self.scopes = frozenset(key.scopes)
        self.models = frozenset(key.models) if key.models else None
        self.networks = Networks(key.networks) if key.networks else None
        self.seen_networks = SeenNetworks()
        # The second of its newest call whose prediction is compared.
        self._compared_at = 0
        # The token in `Tables`, if it is remembered there.
        self.token: bytes | None = None

    def is_first_of_second(self, now: float) -> bool:
        """Return whether this second has had no call whose prediction is compared."""
        second = int(now)
        if second == self._compared_at:
            return False
        self._compared_at = second
        return True

    def enter(self, now: float) -> LimitRefusal | None:
        """Count one call, or refuse it; a counted call must leave `admission` later."""
        back_off = self.back_off
        if back_off is None:
            return self.admission.enter(now)
        refusal = None
        if back_off.cells[CLOSED_UNTIL] > now:
            refusal = back_off.refusal(now)
        if refusal is None:
            refusal = self.admission.enter(now)
            if refusal is not None:
                back_off.note(refusal, now)
        return refusal
