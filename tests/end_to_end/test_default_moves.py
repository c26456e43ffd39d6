"""Test that calls succeed while the default version moves again and again.

Real gateways, site and controller: the controller makes the engine load what is wanted,
moves the route when it is warm, and unloads what no gateway names any more.
"""

import itertools
import time

import httpx
import pytest
from django.urls import reverse

from inference.models import LoadedVersion
from registry.models import RegisteredModel
from tests import machine
from tests.factories import CustomerFactory, PlanFactory, issue_key
from tests.factories_registry import ModelVersionFactory
from tests.load import Load
from tests.torture import FACTOR

pytestmark = [
    pytest.mark.processes,
    pytest.mark.django_db(transaction=True),
    pytest.mark.timeout(240 * FACTOR),
]

MOVES = 8 * FACTOR
# After so many moves, the test waits until the engine has unloaded all versions but the
# default and the former one. Then the next move has to load its version.
REST_EVERY = 4
GATEWAYS = 2
# If a route moved before its version is loaded, calls would fail for this long.
LOAD_S = 0.7


def version_that_answers(plant, token):
    answer = httpx.post(
        f"{plant.url}{machine.PREDICT}",
        content=machine.BODY,
        headers={"authorization": f"Bearer {token}"},
        timeout=30,
        verify=False,
    )
    assert answer.status_code == 200, answer.text
    return int(answer.headers["x-model-version"])


def make_default(admin, version):
    path = reverse("admin:registry_modelversion_make_default", args=(version.pk,))
    answer = admin.post(path, _form_submitted="True")
    assert answer.status_code == 302, answer.text[:500]


def loaded():
    return set(LoadedVersion.objects.values_list("version", flat=True))


def test_no_call_fails_while_the_default_moves(home):
    plan = PlanFactory(burst_requests=100_000, sustained_requests=1_000_000)
    token = issue_key(CustomerFactory(plan=plan)).token
    person = machine.staff("data scientists")
    rests = loads = 0
    with machine.running(gateways=GATEWAYS, load_s=LOAD_S) as plant:
        machine.wait_until(lambda: plant.answers(token), what="a prediction")
        model = RegisteredModel.objects.get(name=machine.MODEL)
        others = [
            ModelVersionFactory(registered_model=model, version=number)
            for number in (2, 3)
        ]
        turns = itertools.cycle([*others, model.versions.get(version=1)])
        former = 1
        with (
            machine.Admin(plant.url, person) as admin,
            Load(plant.gateways.port, [token], connections=8, pause_s=0.02) as load,
        ):
            for move, version in enumerate(itertools.islice(turns, MOVES), 1):
                loads += version.version not in loaded()
                make_default(admin, version)
                machine.wait_until(
                    lambda version=version: (
                        version_that_answers(plant, token) == version.version
                    ),
                    what=f"an answer of version {version.version}",
                )
                if move % REST_EVERY == 0:
                    # The former default stays, so that going back is instant.
                    kept = {version.version, former}
                    machine.wait_until(
                        lambda kept=kept: loaded() == kept,
                        what="the end of versions that nobody needs",
                    )
                    rests += 1
                former = version.version
            time.sleep(1)

    statuses = {call.status for call in load.calls}
    assert statuses == {200}
    assert len({call.gateway for call in load.calls}) == GATEWAYS
    assert len(load.calls) > 20 * MOVES
    # The test did what it claims: versions were unloaded and loaded again.
    assert rests >= MOVES // REST_EVERY
    assert loads > rests
