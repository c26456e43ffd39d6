"""Test `manage.py find_call`, which finds a call by the request id of its error."""

import json

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone

from accounts.admission.limits import ReachedLimit
from accounts.metering.event import Dealt
from accounts.metering.spool import SpoolWriter
from inference.controller.rollouts import conduct
from inference.installation.home import Home
from tests.accounts.metering.test_spool import event
from tests.factories import UserFactory
from tests.factories_registry import ModelVersionFactory, RouteFactory

pytestmark = pytest.mark.django_db


@pytest.fixture
def folder(settings, tmp_path):
    settings.HOME = Home(tmp_path)
    settings.HOME.prepare()
    return settings.HOME.spool


def test_a_call_is_told_with_all_that_is_known_of_it(folder, capsys):
    writer = SpoolWriter(folder, "boot")
    limit = ReachedLimit("day", "customer", "plan", "rows", maximum=10)
    refused = event(3, at=60.0, request_id="r-1", status=429, charged=False)
    writer.append([refused, event(5, at=1.0, request_id="r-1"), event(7)])
    writer.append([event(9, at=90.0, request_id="r-1", limit=limit)])

    call_command("find_call", "r-1")

    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["rows"] for line in lines] == [5, 3, 9]
    assert lines[1]["status"] == 429
    assert lines[1]["at"] == "1970-01-01T00:01:00+00:00"
    assert lines[2]["limit"] == limit.facts()


def test_an_unknown_request_id_is_said_to_be_unknown(folder):
    with pytest.raises(CommandError, match="No call of the last 7 days"):
        call_command("find_call", "nothing")


def test_a_call_is_told_with_the_weights_and_the_stage_that_applied(folder, capsys):
    route = RouteFactory.create()
    canary = ModelVersionFactory.create(registered_model=route.registered_model)
    person = UserFactory.create(username="grace")
    rollout = conduct.start(canary, by=person)
    conduct.advance(rollout, by=person)
    at = timezone.now()
    conduct.advance(rollout, by=person)
    model = route.registered_model.name
    dealt = Dealt(canary=canary.version, to_canary=True, chance=0.05)
    called = event(
        1,
        request_id="r-2",
        at=at.timestamp(),
        model=model,
        version=str(canary.version),
        variant="canary",
        dealt=dealt,
    )
    SpoolWriter(folder, "boot").append([called])

    call_command("find_call", "r-2")

    told = json.loads(capsys.readouterr().out)
    assert (told["version"], told["variant"]) == (str(canary.version), "canary")
    assert told["dealt"]["chance"] == 0.05
    assert told["route"]["canary_weight_percent"] == 5
    assert told["route"]["by"] == "grace"
    assert told["route"]["reason"] == (
        "the canary's weight became 5 %: stage 2 of a rollout. Advanced by hand."
    )
    assert told["rollout"] == {
        "id": rollout.pk,
        "version": str(canary.version),
        "stage": 2,
        "weight_percent": 5,
        "last_action": "advanced",
    }
