"""A client that waits as it is told does not meet the same wall twice.

Thousands of sessions of clients that are in a hurry, against the counts of one gateway
and of several that share them.
"""

import heapq
import math
import random

import pytest

from accounts.admission.admission import Admission
from accounts.admission.back_off import BackOffs
from accounts.admission.limits import LeaseRequest, Limits, Quota, Rate
from accounts.admission.shared_counts import SharedCounts
from tests import torture
from tests.accounts.admission.test_admission import NOON, Site

SESSIONS = torture.examples(1_000)
CALLS = 40


class Service:
    """Some gateways and a site; answers one client."""

    def __init__(self, choice, counts, customer_id):
        self.choice = choice
        quota = Quota("day", "requests", choice.choice([3, 25, 10_000]))
        plan = Limits(
            plan="p",
            rates=(
                Rate("burst", choice.randint(1, 6), 1),
                Rate("sustained", choice.randint(5, 40), 60),
            ),
            quotas=(quota,),
            max_concurrency=choice.choice([None, 1]),
        )
        self.site = Site(quota)
        self.gateways = [
            Admission(customer_id, plan, shared=shared) for shared in counts or [None]
        ]
        self.back_offs = [BackOffs(shared) for shared in counts or []]
        self.customer_id = customer_id

    def answer(self, key_id, now):
        """Send a call to some gateway; return its refusal, if there is one."""
        place = self.choice.randrange(len(self.gateways))
        gateway = self.gateways[place]
        if not self.back_offs:
            return gateway, self.admit(gateway, now)
        key = f"{self.customer_id} {key_id}"
        back_off = self.back_offs[place].of_key(key, gateway, None)
        refusal = back_off.refusal(now)
        if refusal is None:
            refusal = self.admit(gateway, now)
            if refusal is not None:
                back_off.note(refusal, now)
        return gateway, refusal

    def admit(self, gateway, now):
        refusal = gateway.enter(now)
        if refusal is None:
            refusal = self.spend(gateway, now)
            gateway.leave()
        return refusal

    def call(self, now):
        """Return how long to wait and for which limit; empty: for none."""
        gateway, refusal = self.answer("good", now)
        if refusal is not None:
            # What the header says: whole seconds, rounded up.
            return math.ceil(refusal.retry_after_s), refusal.limit_name
        headers = dict(gateway.headers(now))
        _, left, wait = headers[b"RateLimit"].split(b";")
        return (int(wait[2:]) if left == b"r=0" else 0), ""

    def spend(self, gateway, now):
        outcome = gateway.spend(1, now)
        while isinstance(outcome, LeaseRequest):
            grant = self.site.grant(outcome)
            if grant.units < outcome.minimum:
                for other in self.gateways:
                    self.recall(other, outcome)
                grant = self.site.grant(outcome)
            gateway.accept(outcome, grant, now)
            outcome = gateway.spend(1, now)
        return outcome

    def recall(self, holder, request):
        for quota in holder.quotas():
            if quota.starts == request.window_start:
                window = (request.quota, request.unit, request.window_start)
                self.site.granted[window] -= quota.give_back().units


def refusals(service, choice, *, only_told=False):
    """Run one session; return its refusals, each with the limit that it waited for.

    A client that waits only when it is told to does not look at `RateLimit`.
    """
    now = NOON + choice.uniform(0, 86_400)
    met = []
    waited = ""
    for _ in range(CALLS):
        now += choice.expovariate(choice.choice([2, 20, 200]))
        wait, refused = service.call(now)
        if refused:
            met.append((waited, refused))
        waited = refused
        if only_told and not refused:
            wait = 0
        # The answer takes its time, too.
        now += wait + choice.uniform(0, 0.03)
    return met


@pytest.mark.parametrize("only_told", [False, True], ids=["RateLimit", "Retry-After"])
@pytest.mark.parametrize("gateways", [1, 3])
def test_a_client_that_obeys_never_meets_another_refusal(tmp_path, gateways, only_told):
    counts = None
    if gateways > 1:
        path = tmp_path / "counts"
        counts = [
            SharedCounts(path, process=n, processes=gateways) for n in range(gateways)
        ]
    met = 0
    for session in range(SESSIONS):
        choice = random.Random(session)
        service = Service(choice, counts, session)
        found = refusals(service, choice, only_told=only_told)
        again = {pair for pair in found if pair[0]}
        if gateways > 1:
            # One gateway knows of a rate that all share, and not yet that another has
            # just spent the last unit of the quota.
            again -= {("burst", "day"), ("sustained", "day")}
        assert not again, f"session {session}"
        met += len(found)

    # A client that reads `RateLimit` is never refused.
    assert met > SESSIONS if only_told else met == 0


def test_a_client_that_does_not_wait_is_refused_again(tmp_path):
    """The test above can fail: a client that waits a second less meets a refusal."""
    again = 0
    for session in range(200):
        choice = random.Random(session)
        service = Service(choice, None, session)
        real = service.call

        def impatient(now, real=real):
            wait, refused = real(now)
            return max(0, wait - 1), refused

        service.call = impatient
        again += any(waited for waited, _ in refusals(service, choice))

    assert again > 20


HAMMERING_PER_S = 100


@pytest.mark.parametrize("gateways", [1, 3])
def test_a_client_that_obeys_is_never_told_to_back_off(tmp_path, gateways):
    """Though another key of the same customer hammers all the time."""
    path = tmp_path / "counts"
    counts = [
        SharedCounts(path, process=n, processes=gateways) for n in range(gateways)
    ]
    met, hammering = [], 0
    for session in range(200):
        choice = random.Random(session)
        service = Service(choice, counts, session)
        now = wake = NOON + choice.uniform(0, 80_000)
        for _ in range(500):
            now += choice.expovariate(HAMMERING_PER_S)
            _, refusal = service.answer("bad", now)
            hammering += refusal is not None and refusal.limit_name == "backoff"
            if now >= wake:
                wait, refused = service.call(now)
                met.append(refused)
                wake = now + wait + choice.expovariate(2)

    assert hammering > 10_000
    assert "backoff" not in met
    assert set(met) - {""}


def seconds_of_a_herd(counts, calls, late_s):
    """Start calls at once with one key; each waits as it is told, and a little more."""
    plan = Limits(plan="p", rates=(Rate("burst", 20, 1), Rate("sustained", 300, 60)))
    gateway = Admission(1, plan, shared=counts)
    back_off = BackOffs(counts).of_key("herd", gateway, None)
    choice = random.Random(calls)
    start = NOON + 0.3
    waiting = [(start + call / 10_000, call) for call in range(calls)]
    while waiting:
        now, call = heapq.heappop(waiting)
        refusal = back_off.refusal(now)
        if refusal is None:
            refusal = gateway.enter(now)
            if refusal is None:
                gateway.leave()
                continue
            back_off.note(refusal, now)
        wait = max(1, math.ceil(refusal.retry_after_s))
        heapq.heappush(waiting, (now + wait + choice.uniform(0, late_s), call))
    return now - start


@pytest.mark.parametrize("late_s", [0, 0.25])
@pytest.mark.parametrize(("calls", "longest_s"), [(60, 3), (200, 20), (500, 90)])
def test_a_herd_that_obeys_is_through_soon(tmp_path, calls, longest_s, late_s):
    """The limits alone let 200 through in 9 s, and 500 in 69 s."""
    counts = SharedCounts(tmp_path / "counts")

    assert seconds_of_a_herd(counts, calls, late_s) < longest_s


def share_of_the_good(tmp_path, *, back_off):
    """Run a hammering key and an obedient one for ten minutes; return what each gets.

    The obedient one asks for a call a second, a fifth of what the customer may do.
    """
    choice = random.Random(5)
    counts = [
        SharedCounts(tmp_path / f"counts {back_off}", process=n, processes=2)
        for n in range(2)
    ]
    service = Service(choice, counts, 1)
    plan = Limits(plan="p", rates=(Rate("burst", 5, 1), Rate("sustained", 300, 60)))
    for gateway in service.gateways:
        gateway.replace_limits(plan)
    if not back_off:
        service.back_offs = []
    now, wake = NOON, NOON
    asked = given = 0
    while now < NOON + 600:
        now += choice.expovariate(HAMMERING_PER_S)
        service.answer("bad", now)
        if now >= wake:
            _, refusal = service.answer("good", now)
            asked += 1
            given += refusal is None
            wait = 0 if refusal is None else math.ceil(refusal.retry_after_s)
            wake = now + max(wait, choice.expovariate(1))
    return given / asked


def test_a_hammering_key_does_not_lock_out_the_other_keys_of_its_customer(tmp_path):
    without = share_of_the_good(tmp_path, back_off=False)

    # It takes the first calls of each second, and next to nothing is left.
    assert without < 0.2
    assert share_of_the_good(tmp_path, back_off=True) > 0.9
