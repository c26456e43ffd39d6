"""The counts of every customer and key that has called this process. Pure."""

from collections.abc import Callable

from accounts.admission.admission import Admission
from accounts.admission.key_admission import KeyAdmission
from accounts.admission.limits import KeyLimits, LeaseRequest, Limits, Recall, Recalled


class Admissions:
    """Made at a customer's first call, and kept when it is gone from a snapshot.

    Units in hand must be returned even then, and a key that is switched on again must
    find what it has used.
    """

    def __init__(self, make: Callable[..., Admission] = Admission) -> None:
        """`make` is Admission, with whatever it needs of its process."""
        self._make = make
        self._of_customers: dict[int, Admission] = {}
        self._of_keys: dict[str, Admission] = {}
        # Of keys that replaced another one: under which key they are counted.
        self._quota_keys: dict[str, str] = {}

    def find(
        self,
        *,
        customer_id: int,
        limits: Limits,
        key_id: str,
        key_limits: KeyLimits | None,
        quota_key_id: str = "",
    ) -> Admission | KeyAdmission:
        """Give the counts that a call with this key goes through."""
        customer = self._of_customers.get(customer_id)
        if customer is None:
            customer = self._of_customers[customer_id] = self._make(customer_id, limits)
        elif customer.limits != limits:
            customer.replace_limits(limits)
        if key_limits is None:
            return customer
        own = _limits_of_key(key_limits)
        if quota_key_id:
            self._quota_keys[key_id] = quota_key_id
            key_id = quota_key_id
        key = self._of_keys.get(key_id)
        if key is None:
            key = self._of_keys[key_id] = self._make(customer_id, own, key_id=key_id)
        elif key.limits != own:
            key.replace_limits(own)
        return KeyAdmission(key, customer)

    def replace_limits(self, customer_id: int, limits: Limits) -> None:
        """Take a customer's new limits over; those of its keys follow later."""
        admission = self._of_customers.get(customer_id)
        if admission is not None and admission.limits != limits:
            admission.replace_limits(limits)

    def refund(self, *, customer_id: int, key_id: str, rows: int, now: float) -> None:
        """Undo a spend of a customer who may have left since."""
        for admission in (
            self._of_customers.get(customer_id),
            self._of_keys.get(self._quota_keys.get(key_id, key_id)),
        ):
            if admission is not None:
                admission.refund(rows, now)

    def everyone(self) -> list[Admission]:
        return [*self._of_customers.values(), *self._of_keys.values()]

    def recall(self, recall: Recall) -> Recalled:
        """Give up what a lease holds, because another process needs it."""
        if recall.key_id:
            admission = self._of_keys.get(recall.key_id)
        else:
            admission = self._of_customers.get(recall.customer_id)
        if admission is None:
            return Recalled(units=0, number=0)
        return admission.recall(recall)

    def release(self) -> list[LeaseRequest]:
        """Give up all leased and unspent units, on shutdown; tell the site of them."""
        return [request for found in self.everyone() for request in found.release()]


def _limits_of_key(own: KeyLimits) -> Limits:
    return Limits(
        plan="",
        rates=own.rates,
        quotas=own.quotas,
        max_concurrency=own.max_concurrency,
    )
