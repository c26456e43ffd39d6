"""Test rollouts under traffic: one to the promotion, and three that roll back.

Real gateways, site and controller, and the controller is killed on the way.
"""

import copy
import random
import time

import numpy as np
import pytest
from django.db import connection

from inference.controller.rollouts import conduct
from inference.engine.wire.tensors import Tensor
from inference.models import Rollout
from registry import artifacts, schema_gate, sync
from registry.mlflow.types import ModelFile
from registry.models import ModelVersion, RolloutPlan, Route
from registry.rules import rollout_plans
from registry.schema_gate import Override
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

GOOD, FAILING, SLOW, OTHER_COLUMNS = 2, 3, 4, 5
KEYS = 8
# Stages of 3 s. The bounds are wide, so that few calls are evidence enough, and so that
# a busy machine, which makes single calls slow, rolls nothing back.
PLAN = {
    "stages": [
        {"weight_percent": 10, "least_minutes": 0.05, "least_calls": 20},
        {"weight_percent": 40, "least_minutes": 0.05, "least_calls": 50},
    ],
    "most_slow_ratio": 3,
    "safe_slow_ratio": 6,
    "safe_slow_percent": 60,
    "safe_error_percent": 5,
}


class FailingRunner(FakeRunner):
    """A runner that fails on 20 % of its calls."""

    def run(self, tensors):
        if tensors[0].data.any() and random.random() < 0.2:
            raise RuntimeError("a seeded error")
        return super().run(tensors)


class SlowRunner(FakeRunner):
    def run(self, tensors):
        if tensors[0].data.any():
            time.sleep(0.05)
        return (Tensor("output", tensors[0].data * np.float32(2)),)


def register_in_mlflow():
    """Register all versions beside the first, and let the site learn of them."""
    described = ModelVersionFactory.build()
    metadata = described.metadata
    mlflow = FakeMlflow()
    for number in range(1, OTHER_COLUMNS + 1):
        signature = copy.deepcopy(described.signature)
        columns = metadata["columns"]
        if number == OTHER_COLUMNS:
            columns = [*columns, "depth"]
            signature["inputs"][0]["tensor-spec"]["shape"] = [-1, 3]
        mlflow.files[machine.MODEL, number] = ModelFile(
            flavors=tuple(described.flavors),
            signature=signature,
            metadata={**metadata, "columns": columns},
            input_example=[dict.fromkeys(columns, 1.0)],
        )
    mlflow.add(machine.MODEL, *range(1, OTHER_COLUMNS + 1))
    sync.synchronise(mlflow)
    for number in range(2, OTHER_COLUMNS + 1):
        assert artifacts.fetch(version(number), registry=mlflow)


def version(number):
    return ModelVersion.objects.get(
        registered_model__name=machine.MODEL, version=number
    )


def start_in_the_admin(visit, number):
    visit.open(f"/admin/registry/modelversion/{version(number).pk}/change/")
    visit.page.click("text=Start rollout")
    visit.page.select_option("[name=plan]", label="quick")
    visit.page.click("#dialog button[type=submit]")
    visit.page.wait_for_url("**/admin/inference/rollout/*/change/**")
    return Rollout.objects.get(version__version=number)


def start(number):
    new = version(number)
    default = Route.objects.get(registered_model=new.registered_model).default_version
    # One of them takes other columns than the default.
    allowed = frozenset(schema_gate.breaking_between(default, new))
    return conduct.start(
        new,
        by=None,
        plan=rollout_plans.parse(PLAN),
        override=Override("All callers agreed.", allowed),
    )


def end_of(rollout):
    """Wait until it is over; return its state and the guard that ended it."""

    def is_over():
        rollout.refresh_from_db()
        return not rollout.is_active or rollout.state == Rollout.State.PAUSED

    machine.wait_until(is_over, timeout_s=90, what=f"the end of {rollout}")
    last = rollout.events.first()
    return rollout.state, last.guard, rollout.reason


def failed(load, since):
    return [call for call in load.calls[since:] if call.status != 200]


def test_a_good_version_becomes_the_default_and_bad_ones_are_rolled_back(home):
    plan = PlanFactory(burst_requests=100_000, sustained_requests=1_000_000)
    tokens = [issue_key(CustomerFactory(plan=plan)).token for _ in range(KEYS)]
    person = machine.staff("data scientists")
    RolloutPlan.objects.create(name="quick", plan=PLAN)
    runners = {FAILING: FailingRunner(), SLOW: SlowRunner()}
    with machine.running(gateways=2, runners=runners) as plant, launched() as chromium:
        machine.wait_until(lambda: plant.answers(tokens[0]), what="a prediction")
        visit = Visit(chromium.new_page(), plant.url)
        visit.log_in(person.username, machine.PASSWORD)
        register_in_mlflow()
        with Load(plant.gateways.port, tokens, connections=8, pause_s=0.02) as load:
            rollout = start_in_the_admin(visit, GOOD)
            machine.wait_until(
                lambda: Rollout.objects.get(pk=rollout.pk).stage == 1,
                what="the second stage",
            )
            plant.kill("controller")
            plant.start("controller")
            visit.page.wait_for_selector(
                "#rollout :text-is('promoted')", timeout=90_000
            )
            assert end_of(rollout)[0] == "promoted"
            assert [event.action for event in rollout.events.all()] == [
                "promoted",
                "advanced",
                "started",
            ]

            for number, guard, code in (
                (SLOW, "slow", ""),
                (OTHER_COLUMNS, "errors", "INPUT_REFUSED"),
            ):
                rollout = start(number)
                state, ended_by, reason = end_of(rollout)
                assert (state, ended_by) == ("rolled_back", guard), reason
                assert code in reason
                visit.open(f"/admin/inference/rollout/{rollout.pk}/change/")
                assert reason in visit.page.inner_text("#rollout")
            load_so_far = len(load.calls)
            assert failed(load, 0) == []

            rollout = start(FAILING)
            state, guard, reason = end_of(rollout)
            assert (state, guard) == ("rolled_back", "errors"), reason
        errors = failed(load, load_so_far)
        assert {call.code for call in errors} == {"MODEL_ERROR"}
        machine.wait_until(plant.ingested, what="the end of reading the events")
        rollout.refresh_from_db()
        # Every error was of the canary.
        assert rollout.sums["default"]["faults"] == 0
        assert visit.complaints == []
        # While Playwright's loop runs, Django has another connection in this thread.
        connection.close()
    assert len(load.calls) > 1000
