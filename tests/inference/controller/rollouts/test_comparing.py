"""What shadows answered, from the spool to totals and decisions, each exactly once."""

from datetime import timedelta

import pytest
from django.utils import timezone

from accounts.metering import spool
from accounts.metering.comparison import ComparedCalls
from accounts.models import SpoolSegment, Usage
from inference.controller import ledger
from inference.controller.rollouts import conduct, stored_sums
from inference.controller.rollouts.step import step
from inference.models import Rollout, ServingRoute, ShadowTotals
from registry import routes
from registry.models import Route
from registry.routes import RouteError
from registry.rules.rollout_plans import Plan, Stage
from tests.factories import UserFactory
from tests.factories_registry import ModelVersionFactory, RouteFactory

pytestmark = pytest.mark.django_db

PLAN = Plan(stages=(Stage(5, 1, 10),), shadow_percent=40)


@pytest.fixture
def route():
    return RouteFactory.create()


@pytest.fixture
def version(route):
    return ModelVersionFactory.create(registered_model=route.registered_model)


@pytest.fixture
def rollout(version):
    return conduct.start(version, by=UserFactory.create(), plan=PLAN)


class Gateway:
    """Write what copies found to a spool of its own, and let the ledger read it."""

    def __init__(self, folder, route, version):
        self._folder = folder
        self._model = route.registered_model.name
        self._default = route.default_version.version
        self._shadow = version.version
        self._written = 0

    def found(self, *, calls=1, changed=0.0, key="a", minute=0, **given):
        rows = given.pop("rows", calls)
        return ComparedCalls(
            at=timezone.now().timestamp() + 60 * minute + 1,
            customer_id=1,
            key_id=key,
            model=self._model,
            default=given.pop("default", self._default),
            shadow=self._shadow,
            calls=calls,
            failed=given.pop("failed", 0),
            changed=changed,
            rows=rows,
            changed_rows=int(changed * rows / calls),
            distance=changed / 2,
            default_us=100 * calls,
            shadow_us=300 * calls,
        )

    def write(self, *several):
        self._written += 1
        writer = spool.SpoolWriter(self._folder, f"boot{self._written}")
        writer.append_encoded([spool.encode_event(each) for each in several])
        writer.close()

    def read(self):
        ledger.ingest(self._folder, now=timezone.now() + timedelta(seconds=10))

    def send(self, *several):
        self.write(*several)
        self.read()


@pytest.fixture
def gateway(home, route, version):
    return Gateway(home.spool, route, version)


def current():
    return Rollout.objects.select_related("version", "registered_model").get()


def test_totals_grow_and_nothing_is_usage(gateway, route, version):
    gateway.send(gateway.found(calls=3, changed=1.0), gateway.found(calls=2))
    gateway.send(gateway.found(calls=5, failed=1, changed=1.0))

    totals = ShadowTotals.objects.get()
    assert totals.model == route.registered_model.name
    assert totals.shadow_version == version.version
    assert (totals.calls, totals.failed, totals.changed) == (10, 1, 2.0)
    assert (totals.rows, totals.changed_rows, totals.distance) == (10, 2, 1.0)
    assert (totals.default_us, totals.shadow_us) == (1000, 3000)
    assert totals.first_at <= totals.last_at
    assert Usage.objects.count() == 0


def test_a_crash_before_the_commit_counts_nothing_twice(gateway, monkeypatch):
    gateway.write(gateway.found(calls=3))
    save = SpoolSegment.save

    def crash(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(SpoolSegment, "save", crash)
    with pytest.raises(KeyboardInterrupt):
        gateway.read()
    assert ShadowTotals.objects.count() == 0

    monkeypatch.setattr(SpoolSegment, "save", save)
    gateway.read()
    gateway.read()

    assert ShadowTotals.objects.get().calls == 3


def test_a_rollout_makes_its_canary_the_shadow(rollout, version):
    route = Route.objects.get()

    assert (route.canary_version, route.shadow_version) == (version, version)
    assert route.shadow_percent == 40


def test_wrong_answers_roll_back_and_end_the_shadow(gateway, rollout):
    gateway.send(
        *(
            gateway.found(calls=2, changed=2.0, key=f"key {number}")
            for number in range(8)
        )
    )

    step(now=timezone.now())

    ended = current()
    assert (ended.state, ended.events.first().guard) == ("rolled_back", "answers")
    assert "16 of 16 answers of the canary" in ended.reason
    route = Route.objects.get()
    assert (route.canary_version, route.shadow_version) == (None, None)
    kept = ended.events.first().sums["answers"]
    assert (kept["calls"], "counted" in kept) == (16, False)


def test_equal_answers_let_it_go_on(gateway, rollout):
    gateway.send(*(gateway.found(key=f"key {number}") for number in range(50)))

    step(now=timezone.now())

    assert current().state == Rollout.State.WAITING
    assert stored_sums.read(current()).answers.calls == 50


def test_copies_beside_another_default_and_from_before_say_nothing(gateway, rollout):
    other = gateway.found(changed=1.0, default=99)
    early = gateway.found(changed=1.0, minute=-10)

    gateway.send(other, early)

    assert stored_sums.read(current()).answers.calls == 0
    assert ShadowTotals.objects.count() == 2


def test_one_odd_caller_pauses_and_a_person_lets_it_begin_again(gateway, rollout):
    others = [gateway.found(key=f"key {number}") for number in range(2)]
    odd = [gateway.found(changed=1.0, minute=minute) for minute in range(20)]
    gateway.send(*others, *odd)

    step(now=timezone.now())

    assert current().state == Rollout.State.PAUSED
    conduct.resume(current(), by=UserFactory.create())
    assert stored_sums.read(current()).answers.calls == 0


def test_a_promotion_ends_the_shadow(rollout, version):
    conduct.promote(current(), by=UserFactory.create())

    route = Route.objects.get()
    assert (route.default_version, route.shadow_version) == (version, None)


def test_a_shadow_that_was_set_by_hand_since_stays(rollout, route):
    another = ModelVersionFactory.create(registered_model=route.registered_model)
    routes.set_shadow(another, percent=10, by=UserFactory.create())

    conduct.roll_back(current(), by=None, reason="")

    assert Route.objects.get().shadow_version == another


def test_two_rollouts_do_not_share_a_shadow(rollout, route):
    another = ModelVersionFactory.create(registered_model=route.registered_model)

    with pytest.raises(RouteError, match="is the shadow of this route"):
        conduct.start(another, by=None, plan=PLAN)

    assert Route.objects.get().shadow_version == rollout.version
    conduct.start(another, by=None, plan=Plan())


def test_a_shadow_that_was_taken_away_pauses_and_comes_back(rollout, route):
    routes.stop_shadow(route, by=UserFactory.create())

    step(now=timezone.now())
    paused = current()
    conduct.resume(paused, by=UserFactory.create())

    assert paused.state == Rollout.State.PAUSED
    assert "no shadow" in paused.reason
    assert Route.objects.get().shadow_version == rollout.version


def test_a_rollout_without_a_share_sets_no_shadow(version, route):
    conduct.start(version, by=None, plan=Plan())

    assert Route.objects.get().shadow_version is None
    with pytest.raises(RouteError):
        routes.stop_shadow(route, by=None)


def test_a_rollout_whose_sums_are_of_other_code_pauses_and_totals_go_on(
    gateway, rollout
):
    Rollout.objects.update(plan={"stages": "none"})

    gateway.send(gateway.found())

    assert current().state == Rollout.State.PAUSED
    assert ShadowTotals.objects.get().calls == 1
    assert ServingRoute.objects.count() == 0
