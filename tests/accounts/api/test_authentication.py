import datetime
import io
import logging

import pytest
from django.utils import timezone

from accounts.admission import key_format
from accounts.customers import api_keys
from accounts.models import ApiKey
from tests.factories import ApiKeyFactory, CustomerFactory, issue_key

pytestmark = pytest.mark.django_db


def test_a_bearer_token_is_accepted(client):
    issued = issue_key()

    response = client.get(
        "/api/v1/me", headers={"Authorization": f"bearer {issued.token}"}
    )

    assert response.status_code == 200
    assert response.json()["key"]["id"] == issued.key.key_id


def test_the_x_api_key_header_is_accepted(client):
    issued = issue_key()

    response = client.get("/api/v1/me", headers={"X-API-Key": issued.token})

    assert response.json()["key"]["id"] == issued.key.key_id


def test_a_call_without_a_key_is_unauthenticated(client):
    response = client.get("/api/v1/me")

    assert response.status_code == 401
    assert response["WWW-Authenticate"].startswith("Bearer")
    assert response.json()["error"]["code"] == "UNAUTHENTICATED"
    assert response.json()["error"]["reason"] == "missing"


def test_only_the_whole_key_is_told_that_it_has_ended(call):
    revoked = issue_key()
    api_keys.revoke(revoked.key)
    expired = issue_key()
    ApiKey.objects.filter(pk=expired.key.pk).update(
        expires_at=timezone.now() - datetime.timedelta(seconds=1)
    )
    suspended = issue_key(CustomerFactory(active=False))
    unknown = key_format.generate("live").token

    # The id and the checksum are right, but it is not the secret of this revoked key.
    guessed = key_format.generate("live")
    ApiKeyFactory(key_id=guessed.key_id, revoked_at=timezone.now())

    reasons = {
        name: call("/api/v1/me", token).json()["error"].get("reason")
        for name, token in {
            "revoked": revoked.token,
            "expired": expired.token,
            "suspended": suspended.token,
            "unknown": unknown,
            "guessed": guessed.token,
            "mistyped": revoked.token[:-1],
            "short": "my_live_nonsense",
            "empty": "",
            "not ASCII": "käse",
        }.items()
    }

    assert reasons == {
        "revoked": "revoked",
        "expired": "expired",
        "suspended": "inactive",
        "unknown": None,
        "guessed": None,
        "mistyped": "malformed",
        "short": "malformed",
        "empty": "missing",
        "not ASCII": "malformed",
    }


def test_a_mistyped_key_costs_no_query(call, django_assert_num_queries):
    with django_assert_num_queries(0):
        call("/api/v1/me", "my_live_mistyped")


def test_a_call_costs_one_query_for_key_customer_and_plan(
    call, django_assert_num_queries
):
    issued = issue_key()

    with django_assert_num_queries(1):
        response = call("/api/v1/me", issued.token)

    assert response.status_code == 200


def test_a_key_without_the_scope_is_forbidden(call):
    issued = issue_key(scopes=["predict"])

    response = call("/api/v1/usage", issued.token)

    assert response.status_code == 403
    assert response.json()["error"]["code"] == "FORBIDDEN"


def test_no_token_reaches_a_log(call):
    heard = io.StringIO()
    handler = logging.StreamHandler(heard)
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    try:
        issued = issue_key(scopes=["predict"])
        logging.getLogger("canary").info("listening")
        call("/api/v1/me", issued.token)
        call("/api/v1/usage", issued.token)
        call("/api/v1/nothing-here", issued.token)
        call("/api/v1/me", issued.token[:-1] + "_")
        api_keys.rotate(issued.key)
        api_keys.revoke(issued.key)
        call("/api/v1/me", issued.token)
    finally:
        root.removeHandler(handler)
        root.setLevel(level)

    assert "listening" in heard.getvalue()
    assert issued.token.split("_")[3][:20] not in heard.getvalue()


@pytest.mark.parametrize(
    ("remote", "forwarded", "status"),
    [
        ("10.1.2.3", "", 200),
        ("192.0.2.1", "10.1.2.3", 403),
        # From the gateway, over the site's own socket.
        ("", "10.1.2.3", 200),
        ("", "192.0.2.1", 403),
        ("", "", 403),
    ],
)
def test_a_key_with_networks_is_refused_from_elsewhere(
    client, remote, forwarded, status
):
    token = issue_key(allowed_networks=["10.0.0.0/8"]).token

    response = client.get(
        "/api/v1/me",
        headers={"X-API-Key": token, "X-Forwarded-For": forwarded},
        REMOTE_ADDR=remote,
    )

    assert response.status_code == status
    if status == 403:
        error = response.json()["error"]
        assert (error["code"], error["ip"]) == ("FORBIDDEN", remote or forwarded)


@pytest.mark.parametrize(
    "query", ["?api_key={}", "?x={}", "?apikey=none", "?a=1&api-key="]
)
def test_a_key_in_the_query_is_refused_with_advice(client, caplog, query):
    token = issue_key().token

    response = client.get(
        f"/api/v1/me{query.format(token)}", headers={"X-API-Key": token}
    )

    assert response.status_code == 401
    assert "do not belong in URLs" in response.json()["error"]["message"]
    assert token not in caplog.text
