"""Test that the site's own prediction views refuse requests behind a gateway."""

import pytest
from django.test import Client


@pytest.mark.django_db
def test_predictions_that_a_gateway_relays_are_refused(home):
    relayed = Client(REMOTE_ADDR="", headers={"X-Forwarded-For": "10.0.0.9"})

    answer = relayed.post("/api/v1/models/m/predict", b"{}", "application/json")

    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "NOT_FOUND"
