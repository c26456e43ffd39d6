"""Test keys in the plan: their networks, test mode, and keys in the query."""

import msgspec
import pytest

from accounts.admission.limits import KeyLimits, LeaseGrant, Limits, Quota, Rate
from accounts.admission.networks import Networks
from inference.engine.wire.errors import EngineError, EngineErrorCode
from inference.prediction.effects import NeedBody
from tests.inference.prediction.test_plan import KEY, Driver, code, read, snapshot


def driver(*, limits=None, trusted=(), **changes):
    published = snapshot(limits=limits)
    key = msgspec.structs.replace(published.keys[0], **changes)
    made = Driver(msgspec.structs.replace(published, keys=(key,)))
    made.plan.trusted_proxies = Networks(trusted)
    return made


@pytest.mark.parametrize(
    ("peer", "forwarded", "status"),
    [
        ("10.1.2.3", None, 200),
        ("192.0.2.1", None, 403),
        # Any caller can write this header.
        ("192.0.2.1", b"10.1.2.3", 403),
        ("172.16.0.1", b"10.1.2.3", 200),
        ("172.16.0.1", b"10.1.2.3, 192.0.2.1", 403),
        ("", None, 403),
    ],
)
def test_a_key_with_networks_is_refused_from_elsewhere(peer, forwarded, status):
    plan = driver(networks=("10.0.0.0/8",), trusted=("172.16.0.0/12",))
    headers = {} if forwarded is None else {b"x-forwarded-for": forwarded}

    assert plan.call(headers=headers, peer=peer).status == status


def test_a_refused_address_is_named_before_scope_and_model_and_recorded():
    plan = driver(networks=("10.0.0.0/8",), scopes=("usage",))

    answer = plan.call(peer="192.0.2.1", model="unknown")

    assert code(answer) == (403, "FORBIDDEN")
    assert read(answer)["error"]["ip"] == "192.0.2.1"
    assert (answer.event.status, answer.event.charged) == (403, False)


def test_keys_without_networks_work_from_anywhere():
    assert driver().call(peer="nonsense").status == 200


@pytest.mark.parametrize("key", [KEY.token, None])
def test_a_key_in_the_query_is_refused_with_advice(key):
    answer = driver().call(key=key, key_in_query=True)

    assert code(answer) == (401, "UNAUTHENTICATED")
    assert "do not belong in URLs" in read(answer)["error"]["message"]


def test_a_test_key_passes_the_same_checks_and_is_not_charged():
    limits = Limits(
        plan="p",
        rates=(Rate("burst", 3, 1),),
        quotas=(Quota("day", "requests", 1),),
        max_predict_rows=3,
    )
    plan = driver(limits=limits, test=True)
    plan.grants = [LeaseGrant(units=1, remaining=0)]

    answers = [plan.call() for _ in range(4)]

    # Its one unit is refunded after every call, but rates count.
    assert [answer.status for answer in answers] == [200, 200, 200, 429]
    assert [answer.event.charged for answer in answers] == [False] * 4
    assert [answer.event.test for answer in answers] == [True] * 4


def test_a_live_key_is_charged_and_its_failures_are_not():
    plan = driver()
    good = plan.call()
    plan.failure = EngineError(EngineErrorCode.CONNECTION_LOST, "gone")
    bad = plan.call()

    assert (good.event.charged, good.event.test) == (True, False)
    assert (bad.status, bad.event.charged) == (503, False)


def test_a_key_has_less_than_its_customer():
    plan = driver(limits=None, test=False)
    key = msgspec.structs.replace(
        plan.tables.as_snapshot().keys[0],
        limits=KeyLimits(rates=(Rate("key-burst", 1, 1),)),
    )
    plan.tables.replace(msgspec.structs.replace(plan.tables.as_snapshot(), keys=(key,)))

    assert plan.call().status == 200
    refused = plan.call()
    assert code(refused) == (429, "RATE_LIMIT_EXCEEDED")
    assert read(refused)["error"]["limit"] == "key-burst"


def test_a_plan_may_take_smaller_bodies_than_the_site():
    limits = Limits(
        plan="p", rates=(Rate("burst", 9, 1),), max_predict_rows=3, max_body_bytes=10
    )
    plan = driver(limits=limits)

    plan.call()

    assert plan.effects[0] == NeedBody(10, customer_id=7)


def test_the_first_event_of_a_network_names_it_and_no_other_does():
    plan = driver(trusted=["10.0.0.0/8"])
    hops = [b"203.0.113.1", b"203.0.113.1", b"203.0.113.200", b"198.51.100.7"]

    answers = [
        plan.call(peer="10.0.0.1", headers={b"x-forwarded-for": hop}) for hop in hops
    ]

    assert [answer.event.network for answer in answers] == [
        "203.0.113.0/24",
        "",
        "",
        "198.51.100.0/24",
    ]
