"""Hold the counts of every customer and key that has called this process."""

from collections.abc import Callable

from accounts.admission.admission import Admission
from accounts.admission.key_admission import KeyAdmission
from accounts.admission.limits import KeyLimits, LeaseRequest, Limits, Recall, Recalled


class Admissions:
    """The Admission of each customer and of each key with limits of its own.

    Each is made at the first call, and kept when its customer or key is gone from a
    snapshot: its unspent units must be returned, and a key that is switched on again
    must not start from zero.
    """

    def __init__(self, make: Callable[..., Admission] = Admission) -> None:
        """`make` is Admission, with the arguments that its process gives to each."""
        self._make = make
        self._of_customers: dict[int, Admission] = {}
        self._of_keys: dict[str, Admission] = {}
        # For a key that replaced another: the key under which it is counted.
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
        """Return the counts that a call with this key goes through."""
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
        """Change a customer's limits; `find` changes those of its keys."""
        admission = self._of_customers.get(customer_id)
        if admission is not None and admission.limits != limits:
            admission.replace_limits(limits)

    def refund(self, *, customer_id: int, key_id: str, rows: int, now: float) -> None:
        """Undo a spend; the customer may be gone since."""
        for admission in (
            self._of_customers.get(customer_id),
            self._of_keys.get(self._quota_keys.get(key_id, key_id)),
        ):
            if admission is not None:
                admission.refund(rows, now)

    def everyone(self) -> list[Admission]:
        return [*self._of_customers.values(), *self._of_keys.values()]

    def recall(self, recall: Recall) -> Recalled:
        """Give up the unspent units of a lease, because another process needs them."""
        if recall.key_id:
            admission = self._of_keys.get(recall.key_id)
        else:
            admission = self._of_customers.get(recall.customer_id)
        if admission is None:
            return Recalled(units=0, number=0)
        return admission.recall(recall)

    def release(self) -> list[LeaseRequest]:
        """Give up all unspent units on shutdown; return requests that tell the site."""
        return [request for found in self.everyone() for request in found.release()]


def _limits_of_key(own: KeyLimits) -> Limits:
    return Limits(
        plan="",
        rates=own.rates,
        quotas=own.quotas,
        max_concurrency=own.max_concurrency,
    )
