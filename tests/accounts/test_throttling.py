import time

import pytest

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


def test_keys_are_counted_apart(call, now):
    first, second = issue(1, 300), issue(1, 300)
    call("/api/v1/me", first.token)

    assert call("/api/v1/me", first.token).status_code == 429
    assert call("/api/v1/me", second.token).status_code == 200
