"""Admit calls of a key that has limits of its own, below its customer's."""

from accounts.admission.admission import POLICY_HEADER, Admission, Reserved
from accounts.admission.limits import LeaseGrant, LeaseRequest, Limits
from accounts.admission.refusal import LimitRefusal, later


class KeyAdmission:
    """Count every call twice: for the key, and for its customer.

    If one of them refuses a call, neither counts it. A key without limits of its own
    uses its customer's Admission directly.
    """

    __slots__ = ("customer", "key", "reserved")

    def __init__(self, key: Admission, customer: Admission) -> None:
        self.key = key
        self.customer = customer
        self.reserved: Reserved = ()

    @property
    def limits(self) -> Limits:
        """The customer's limits: sizes are never limited by key."""
        return self.customer.limits

    @property
    def owed(self) -> list[LeaseRequest]:
        return self.key.owed if self.key.owed else self.customer.owed

    def enter(self, now: float) -> LimitRefusal | None:
        refusal = self.key.enter(now)
        if refusal is not None:
            return later(refusal, self.customer.closed(now))
        refusal = self.customer.enter(now)
        if refusal is not None:
            self.key.withdraw(now)
        return refusal

    def leave(self) -> None:
        self.key.leave()
        self.customer.leave()

    def spend(
        self, rows: int, now: float, *, explains: bool = False
    ) -> LimitRefusal | LeaseRequest | None:
        outcome = self.key.spend(rows, now, explains=explains)
        if isinstance(outcome, LimitRefusal):
            return later(outcome, self.customer.lacks(rows, now, explains=explains))
        if outcome is not None:
            return outcome
        outcome = self.customer.spend(rows, now, explains=explains)
        if outcome is not None:
            self.key.refund(rows, now, self.key.reserved)
            return outcome
        if self.key.reserved or self.customer.reserved:
            self.reserved = [*self.key.reserved, *self.customer.reserved]
        else:
            self.reserved = ()
        return None

    def refund(self, rows: int, now: float, reserved: Reserved = ()) -> None:
        self.key.refund(rows, now)
        self.customer.refund(rows, now, reserved)

    def give_back(self, rows: int, now: float) -> None:
        self.key.give_back(rows, now)
        self.customer.give_back(rows, now)

    def settle(
        self,
        reserved: Reserved,
        *,
        rows: int,
        compute_us: int,
        samples: int,
        now: float,
    ) -> None:
        self.customer.settle(
            reserved, rows=rows, compute_us=compute_us, samples=samples, now=now
        )

    def accept(self, request: LeaseRequest, grant: LeaseGrant, now: float) -> None:
        self._of(request).accept(request, grant, now)

    def give_up_on(self, request: LeaseRequest) -> None:
        self._of(request).give_up_on(request)

    def overdraw(self, request: LeaseRequest, now: float) -> bool:
        return self._of(request).overdraw(request, now)

    def headers(self, now: float) -> list[tuple[bytes, bytes]]:
        """Describe the limit nearest to exhaustion, and the policies of both."""
        own, others = self.key.nearness(now), self.customer.nearness(now)
        nearer = self.key if own <= others else self.customer
        policies = filter(None, (self.key.policy(now), self.customer.policy(now)))
        policy = (POLICY_HEADER, b", ".join(policies))
        return [
            policy if header[0] == POLICY_HEADER else header
            for header in nearer.headers(now)
        ]

    def _of(self, request: LeaseRequest) -> Admission:
        return self.key if request.key_id else self.customer
