"""Test that a change in the admin reaches every gateway within 1 s.

Four gateways are under load by HTTP and gRPC; the test uses the admin over HTTP as a
browser does. Times run from the admin's answer to the last call that is still admitted.
"""

import time

import pytest
from django.forms.models import model_to_dict
from django.urls import reverse

from benchmarks.ports import free_port
from tests import machine
from tests.factories import CustomerFactory, PlanFactory, issue_key
from tests.load import GrpcConnection, Load
from tests.torture import FACTOR

pytestmark = [
    pytest.mark.processes,
    pytest.mark.django_db(transaction=True),
    pytest.mark.timeout(180 * FACTOR),
]

REVOCATIONS = 3 * FACTOR
PROMISED_S = 1.0
GATEWAYS = 4


def customer():
    plan = PlanFactory(burst_requests=100_000, sustained_requests=1_000_000)
    return CustomerFactory(plan=plan)


def revoke(admin, key):
    answer = admin.post(
        reverse("admin:accounts_apikey_revoke", args=(key.pk,)), _form_submitted="True"
    )
    assert answer.status_code == 302, answer.text[:500]


def lower_the_rate(admin, plan):
    fields = {
        **model_to_dict(plan),
        "burst_requests": 1,
        "sustained_requests": 1,
        "further_quotas": "{}",
    }
    answer = admin.post(
        reverse("admin:accounts_plan_change", args=(plan.pk,)),
        **{name: "" if value is None else value for name, value in fields.items()},
    )
    assert answer.status_code == 302, answer.text[:500]


def last_let_through(load, token, changed_at):
    """Return how long after a change a call was still admitted; 0: never.

    The one call that a rate admits in each new minute does not count.
    """
    to_wall = time.time() - time.monotonic()
    minute = (changed_at + to_wall) // 60
    late = [call.sent for call in load.of(token)]
    in_time = [sent for sent in late if (sent + to_wall) // 60 <= minute]
    return max(0.0, max(late if len(late) - len(in_time) > 1 else in_time) - changed_at)


def test_revoked_keys_and_lowered_rates_hold_everywhere_within_a_second(home):
    revoked = [issue_key(customer()) for _ in range(REVOCATIONS)]
    kept, slowed = issue_key(customer()), issue_key(customer())
    tokens = [issued.token for issued in (*revoked, kept, slowed)]
    person = machine.account_manager()
    grpc_port = free_port()
    changed = {}

    with machine.running(
        gateways=GATEWAYS, MODELYARD_GRPC_PORT=str(grpc_port)
    ) as plant:
        machine.wait_until(lambda: plant.answers(kept.token), what="a prediction")
        with (
            machine.Admin(plant.url, person) as admin,
            # Enough connections for each gateway to have some.
            Load(plant.gateways.port, tokens, connections=64) as http,
            Load(grpc_port, tokens, connections=32, connect=GrpcConnection) as grpc,
        ):
            machine.wait_until(
                lambda: all(
                    load.of(token) for load in (http, grpc) for token in tokens
                ),
                what="the load",
            )
            for issued in revoked:
                revoke(admin, issued.key)
                changed[issued.token] = time.monotonic()
            lower_the_rate(admin, slowed.key.customer.plan)
            changed[slowed.token] = time.monotonic()
            machine.wait_until(
                lambda: all(
                    load.of(slowed.token, 429)
                    and all(load.of(issued.token, 401) for issued in revoked)
                    for load in (http, grpc)
                ),
                what="the changes",
            )
            time.sleep(2 * PROMISED_S)

    took = {
        kind: [last_let_through(load, token, at) for token, at in changed.items()]
        for kind, load in (("http", http), ("grpc", grpc))
    }
    # Shown with `-s`, for docs/limits.md.
    print(took)
    for token in tokens:
        assert len({call.gateway for call in http.of(token)}) == GATEWAYS
    for load in (http, grpc):
        assert load.of(slowed.token, 429)
        assert all(load.of(issued.token, 401) for issued in revoked)
        # Other keys are not affected.
        others = [call.status for call in load.calls if call.token == kept.token]
        assert set(others) == {200}
    # The promise holds on an idle machine: of several changes, at least one should not
    # be delayed by other processes.
    everywhere = [max(pair) for pair in zip(took["http"], took["grpc"], strict=True)]
    assert min(everywhere[:-1]) <= PROMISED_S
    assert max(everywhere) <= 10 * PROMISED_S
