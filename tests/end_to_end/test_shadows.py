"""Test a rollout whose canary answers wrongly, as its route's shadow notices.

Real gateways, site and controller; the controller is killed on the way.
"""

import numpy as np
import pytest
from django.db import connection

from accounts.models import Usage
from inference.controller.rollouts import conduct
from inference.engine.wire.tensors import Tensor
from inference.models import Rollout, ShadowTotals
from registry import artifacts, sync
from registry.mlflow.types import ModelFile
from registry.models import ModelVersion, Route
from registry.rules import rollout_plans
from tests import machine
from tests.browsing import CHROMIUM, Visit, launched
from tests.factories import CustomerFactory, PlanFactory, issue_key
from tests.factories_registry import ModelVersionFactory
from tests.fakes import FakeMlflow
from tests.inference.engine.fakes import FakeRunner
from tests.load import Load
from tests.torture import FACTOR

pytestmark = [
    pytest.mark.processes,
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on PATH"),
    pytest.mark.django_db(transaction=True),
    pytest.mark.timeout(300 * FACTOR),
]

WRONG = 2
KEYS = 8
# It would be promoted only after an hour.
PLAN = {
    "stages": [{"weight_percent": 1, "least_minutes": 60, "least_calls": 20}],
    "shadow_percent": 100,
}


class WrongRunner(FakeRunner):
    """A runner that takes each class for the other, as quickly."""

    def run(self, tensors):
        [output] = super().run(tensors)
        return (Tensor(output.name, np.ascontiguousarray(output.data[:, ::-1])),)


def register():
    described = ModelVersionFactory.build()
    mlflow = FakeMlflow()
    for number in (1, WRONG):
        mlflow.files[machine.MODEL, number] = ModelFile(
            flavors=tuple(described.flavors),
            signature=described.signature,
            metadata=described.metadata,
        )
    mlflow.add(machine.MODEL, 1, WRONG)
    sync.synchronise(mlflow)
    version = ModelVersion.objects.get(
        registered_model__name=machine.MODEL, version=WRONG
    )
    assert artifacts.fetch(version, registry=mlflow)
    return version


def test_a_canary_with_wrong_answers_is_rolled_back_and_no_call_fails(home):
    plan = PlanFactory(burst_requests=100_000, sustained_requests=1_000_000)
    tokens = [issue_key(CustomerFactory(plan=plan)).token for _ in range(KEYS)]
    person = machine.staff("data scientists")
    runners = {WRONG: WrongRunner()}
    with machine.running(gateways=2, runners=runners) as plant, launched() as chromium:
        machine.wait_until(lambda: plant.answers(tokens[0]), what="a prediction")
        visit = Visit(chromium.new_page(), plant.url)
        visit.log_in(person.username, machine.PASSWORD)
        version = register()
        with Load(plant.gateways.port, tokens, connections=4, pause_s=0.05) as load:
            rollout = conduct.start(version, by=None, plan=rollout_plans.parse(PLAN))
            machine.wait_until(
                ShadowTotals.objects.exists, timeout_s=60, what="compared answers"
            )
            plant.kill("controller")
            plant.start("controller")

            def is_over():
                rollout.refresh_from_db()
                return not rollout.is_active or rollout.state == Rollout.State.PAUSED

            machine.wait_until(is_over, timeout_s=90, what="the end of the rollout")
            assert (rollout.state, rollout.events.first().guard) == (
                "rolled_back",
                "answers",
            ), rollout.reason
            visit.open(f"/admin/inference/rollout/{rollout.pk}/change/")
            assert rollout.reason in visit.page.inner_text("#rollout")
            visit.open(f"/admin/registry/modelversion/{version.pk}/change/")
            assert "beside the default v1" in visit.page.inner_text("#shadows")
        assert [call for call in load.calls if call.status != 200] == []
        machine.wait_until(plant.ingested, what="the end of reading the events")

        route = Route.objects.get()
        assert (route.canary_version, route.shadow_version) == (None, None)
        totals = ShadowTotals.objects.get()
        assert totals.changed_rows == totals.rows > 0
        # Copies are no usage: there are as many requests as answers.
        asked = len(load.calls)
        usage = sum(row.requests for row in Usage.objects.filter(operation="predict"))
        assert asked <= usage <= asked + 50
        assert visit.complaints == []
        # While Playwright's loop runs, Django has another connection in this thread.
        connection.close()
