import datetime
import time

import pytest

from accounts.customers.api_keys import OwnLimits
from tests.factories import CustomerFactory, issue_key

pytestmark = pytest.mark.django_db


@pytest.fixture
def now(monkeypatch):
    """Stop the clock that django-ratelimit reads, in the middle of a second."""

    class Clock:
        seconds = 1_795_262_400.5

    monkeypatch.setattr(time, "time", lambda: Clock.seconds)
    return Clock


def issue(burst, sustained):
    return issue_key(
        CustomerFactory(plan__burst_requests=burst, plan__sustained_requests=sustained)
    )


def test_answers_carry_the_rate_headers(call, now):
    token = issue(5, 300).token

    response = call("/api/v1/me", token)

    assert response["X-RateLimit-Limit"] == "5"
    assert response["X-RateLimit-Remaining"] == "4"
    assert response["X-RateLimit-Reset"] == str(int(now.seconds) + 1)
    assert response["RateLimit-Policy"] == '"burst";q=5;w=1, "sustained";q=300;w=60'
    assert response["RateLimit"] == '"burst";r=4;t=1'


def test_calls_over_the_burst_are_refused_until_the_next_second(call, now):
    token = issue(3, 300).token

    statuses = [call("/api/v1/me", token).status_code for _ in range(5)]
    refused = call("/api/v1/me", token)
    now.seconds += int(refused["Retry-After"])
    after = call("/api/v1/me", token)

    assert statuses == [200, 200, 200, 429, 429]
    assert refused.json()["error"]["code"] == "RATE_LIMIT_EXCEEDED"
    assert refused["X-RateLimit-Remaining"] == "0"
    assert after.status_code == 200


def test_a_client_that_waits_as_told_passes_the_sustained_limit(call, now):
    token = issue(100, 4).token
    for _ in range(4):
        assert call("/api/v1/me", token).status_code == 200

    refused = call("/api/v1/me", token)

    assert refused.status_code == 429
    assert refused["RateLimit"].startswith('"sustained";r=0')
    now.seconds += int(refused["Retry-After"])
    assert call("/api/v1/me", token).status_code == 200


def test_refusals_by_the_burst_do_not_use_up_the_minute(call, now):
    token = issue(1, 3).token
    for _ in range(10):
        call("/api/v1/me", token)
    now.seconds += 1

    assert call("/api/v1/me", token).status_code == 200


def test_a_refusal_names_its_rate(call, now):
    token = issue(3, 2).token
    for _ in range(2):
        call("/api/v1/me", token)

    refused = call("/api/v1/me", token)

    error = refused.json()["error"]
    assert error["message"] == (
        "This API key has sent 2 requests per minute to this part of the API,"
        " its sustained limit. Slow down."
    )
    named = ("limit", "scope", "source", "unit", "maximum", "used", "window_s")
    assert tuple(error[name] for name in named) == (
        *("sustained", "key", "plan", "requests"),
        *(2, 2, 60),
    )
    resets_at = datetime.datetime.fromisoformat(error["resets_at"]).timestamp()
    assert resets_at - int(now.seconds) == int(refused["Retry-After"])


def test_a_key_with_a_rate_of_its_own_is_held_to_it(call, now):
    customer = CustomerFactory(plan__burst_requests=9)
    token = issue_key(customer, limits=OwnLimits(burst_requests=2)).token
    answers = [call("/api/v1/me", token) for _ in range(3)]

    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert answers[0]["RateLimit"] == '"key-burst";r=1;t=1'
    assert '"key-burst";q=2;w=1' in answers[0]["RateLimit-Policy"]
    error = answers[2].json()["error"]
    assert (error["limit"], error["source"]) == ("key-burst", "key")


@pytest.mark.parametrize(
    ("key_fields", "sent"),
    [
        ({"scopes": ["predict"]}, {}),
        ({"allowed_networks": ["192.0.2.0/24"]}, {}),
        ({}, {"Accept": "image/png"}),
    ],
    ids=["scope", "network", "media type"],
)
def test_what_is_refused_before_it_is_counted_has_rate_headers_too(
    client, now, key_fields, sent
):
    customer = CustomerFactory(plan__burst_requests=5)
    token = issue_key(customer, **key_fields).token
    headers = {"Authorization": f"Bearer {token}"} | sent

    for path in ("/api/v1/usage", "/api/v1/jobs"):
        for _ in range(3):
            refused = client.get(path, headers=headers)

        assert refused.status_code in (403, 406)
        assert refused["X-RateLimit-Limit"] == refused["X-RateLimit-Remaining"] == "5"
        assert refused["RateLimit"] == '"burst";r=5;t=1'
        assert refused["RateLimit-Policy"].startswith('"burst";q=5;w=1, "sustained"')


def test_a_job_without_its_scope_has_rate_headers_and_the_scope(client, now):
    token = issue_key(CustomerFactory(), scopes=["predict"]).token

    refused = client.post(
        "/api/v1/jobs",
        {"model": "m", "instances": [{}]},
        content_type="application/json",
        headers={"Authorization": f"Bearer {token}"},
    )

    assert refused.status_code == 403
    assert refused.json()["error"]["scope"] == "jobs"
    assert refused["RateLimit"].startswith('"burst";r=')


@pytest.mark.parametrize("token", ["", "my_live_nonsense"])
def test_without_a_valid_key_there_are_no_rate_headers(call, token):
    refused = call("/api/v1/usage", token)

    assert refused.status_code == 401
    assert "RateLimit" not in refused


def test_keys_are_counted_apart(call, now):
    first, second = issue(1, 300), issue(1, 300)
    call("/api/v1/me", first.token)

    assert call("/api/v1/me", first.token).status_code == 429
    assert call("/api/v1/me", second.token).status_code == 200
