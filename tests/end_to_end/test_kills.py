"""Test that gateways answer while site and controller are killed again and again."""

import random
import time
from collections import Counter

import pytest
from django.utils import timezone

from inference.models import ControllerLease
from tests import machine
from tests.factories import CustomerFactory, PlanFactory, issue_key
from tests.load import Load
from tests.torture import FACTOR

pytestmark = [
    pytest.mark.processes,
    pytest.mark.django_db(transaction=True),
    pytest.mark.timeout(240 * FACTOR),
]

ROUNDS = 2 * FACTOR
SMALL_QUOTA = 400
# Of a quota, while the site is away.
OVERDRAFT = SMALL_QUOTA // 20


def customer(quota):
    return CustomerFactory(
        plan=PlanFactory(
            burst_requests=100_000,
            sustained_requests=1_000_000,
            daily_quota=quota,
            quota_unit="requests",
        )
    )


def leader():
    return ControllerLease.objects.filter(expires_at__gt=timezone.now()).first()


def kill_again_and_again(plant, chance):
    """Kill both at random moments, wait until they work again, and repeat."""
    for _ in range(ROUNDS):
        former = leader()
        for name in chance.sample(["internal", "controller"], 2):
            time.sleep(chance.uniform(0, 1.2))
            plant.kill(name)
            plant.start(name)
        machine.wait_until(
            lambda known=former.holder: (
                (lease := leader()) and lease.holder not in ("", known)
            ),
            what="another controller",
        )
        machine.wait_until(lambda: machine.site_answers(plant.home), what="the site")


def test_no_call_fails_and_each_is_counted_once_whatever_is_killed(home):
    large, small = issue_key(customer(10**7)), issue_key(customer(SMALL_QUOTA))
    tokens = [large.token, small.token]

    with machine.running(gateways=2) as plant:
        machine.wait_until(lambda: plant.answers(large.token), what="a prediction")
        machine.wait_until(plant.ingested, what="the first events in the ledger")
        before = machine.counted_once(plant)
        with Load(plant.gateways.port, tokens, connections=16) as load:
            kill_again_and_again(plant, random.Random(20261121))
            machine.wait_until(
                lambda: load.of(small.token, 429), what="the end of the quota"
            )
        machine.wait_until(plant.ingested, what="the rest in the ledger")
        events = machine.counted_once(plant)

    statuses = {
        token: Counter(call.status for call in load.calls if call.token == token)
        for token in tokens
    }
    assert set(statuses[large.token]) == {200}
    # 503 only if the overdraft is spent and the site cannot lend.
    assert set(statuses[small.token]) <= {200, 429, 503}
    assert SMALL_QUOTA <= statuses[small.token][200] <= SMALL_QUOTA + OVERDRAFT
    # No gateway died, so there are no other events.
    assert sorted(load.answered()) == sorted(events - before)
