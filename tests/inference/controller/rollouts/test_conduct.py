"""What people may do with rollouts, and what a rollout does by itself."""

from datetime import UTC, datetime, timedelta

import pytest
from django.utils import timezone

from accounts.metering import spool
from accounts.metering.event import Dealt, UsageEvent
from accounts.models import Usage
from inference.controller import ledger
from inference.controller.rollouts import conduct, stored_sums
from inference.controller.rollouts.step import step
from inference.metrics.counts import HERE
from inference.models import Rollout, RolloutEvent, ServingRoute
from registry import routes
from registry.models import RolloutPlan, Route
from registry.routes import RouteError
from registry.rules.rollout_plans import Plan, Stage
from registry.schema_gate import Override
from tests.factories import CustomerFactory, UserFactory
from tests.factories_registry import (
    ModelVersionFactory,
    RouteFactory,
    breaking_version,
)
from tests.factories_serving import VersionConditionFactory

pytestmark = pytest.mark.django_db

PLAN = Plan(stages=(Stage(5, 1, 10), Stage(50, 1, 500)), most_minutes=60)


@pytest.fixture
def route():
    return RouteFactory()


@pytest.fixture
def version(route):
    return ModelVersionFactory(registered_model=route.registered_model)


@pytest.fixture
def rollout(version):
    return conduct.start(version, by=UserFactory(), plan=PLAN)


@pytest.fixture
def served(rollout):
    """Let gateways serve what the rollout set; return a function that does so again."""

    def serve(now=None):
        route = Route.objects.get()
        ServingRoute.objects.update_or_create(
            model=route.registered_model.name,
            defaults={
                "default_version": route.default_version.version,
                "canary_version": rollout.version.version,
                "canary_weight_percent": route.canary_weight_percent,
                "default_weight_percent": route.default_weight_percent,
            },
        )
        step(now=now or timezone.now())

    serve()
    return serve


def current():
    return Rollout.objects.select_related("version", "registered_model").get()


class Traffic:
    """Write calls of four keys as the gateways' spool has them, and read them."""

    def __init__(self, folder, rollout):
        self._folder, self._rollout = folder, rollout
        self._customer = CustomerFactory()
        self._number = 0
        self.canary = rollout.version.version

    def send(self, count, *, to_canary=True, chance=1.0, status=200, **given):
        at = timezone.now().timestamp() + 5
        events = []
        for _ in range(count):
            self._number += 1
            fault = given.get("fault", "")
            dealt = Dealt(
                self.canary,
                to_canary,
                chance,
                fault,
                predicted=given.get("predicted", -1),
                given_up_rows=given.get("given_up_rows", 0),
            )
            events.append(
                UsageEvent(
                    id=f"b-{self._number}",
                    at=at + given.get("apart_s", 60) * self._number,
                    customer_id=self._customer.pk,
                    key_id=f"k{self._number % 4}",
                    operation="predict",
                    model=self._rollout.registered_model.name,
                    version="1",
                    variant="canary" if to_canary else "default",
                    status=status,
                    code=given.get("code", ""),
                    rows=1,
                    charged=False,
                    compute_us=10,
                    total_us=given.get("total_us", 1000),
                    shap_samples=0,
                    request_id="r",
                    dealt=dealt,
                )
            )
        writer = spool.SpoolWriter(self._folder, f"boot{self._number}")
        writer.append(events)
        writer.close()
        ledger.ingest(self._folder, now=timezone.now() + timedelta(seconds=10))


@pytest.fixture
def traffic(home, served):
    sender = Traffic(home.spool, current())
    # What is slow is known from now on.
    sender.send(200, to_canary=False, chance=0.0)
    return sender


def later(minutes=2):
    return timezone.now() + timedelta(minutes=minutes)


def test_a_rollout_begins_with_its_first_weight(rollout, version):
    route = Route.objects.get()

    assert (route.canary_version, route.canary_weight_percent) == (version, 5)
    assert current().state == Rollout.State.WAITING
    assert RolloutEvent.objects.get().action == "started"


def test_the_plan_of_the_route_counts(version):
    plan = RolloutPlan.objects.create(
        name="careful", plan={"stages": [{"weight_percent": 3}]}
    )
    Route.objects.update(rollout_plan=plan)

    rollout = conduct.start(version, by=None)

    assert rollout.weight_percent == 3
    assert len(stored_sums.plan_of(rollout).stages) == 1


def test_time_begins_when_gateways_serve_the_weight(rollout, served):
    assert current().state == Rollout.State.RUNNING
    assert current().stage_began_at is not None


def test_a_version_that_does_not_load_waits_and_says_why(rollout):
    ServingRoute.objects.create(
        model=rollout.registered_model.name,
        default_version=rollout.default_version.version,
        waiting_for="version 7 failed on engine cpu: no such layer",
    )

    step(now=timezone.now())

    assert current().state == Rollout.State.WAITING
    assert "no such layer" in current().reason


def test_a_version_with_a_problem_is_refused(version):
    version.serving_problem = "It failed on engine cpu: no such layer"
    version.save()

    with pytest.raises(RouteError, match="no such layer"):
        conduct.start(version, by=None)


def test_there_is_one_rollout_of_a_version_at_a_time(rollout):
    with pytest.raises(RouteError, match="unfinished rollout"):
        conduct.start(rollout.version, by=None)

    assert Route.objects.get().canary_weight_percent == 5


def test_good_calls_lead_through_all_stages_to_the_promotion(traffic, served, version):
    traffic.send(20)
    step(now=later())
    assert (current().stage, current().weight_percent) == (1, 50)
    assert Route.objects.get().canary_weight_percent == 50
    served()
    traffic.send(200, to_canary=False, chance=0.0)

    traffic.send(800)
    step(now=later())

    assert current().state == Rollout.State.PROMOTED
    assert Route.objects.get().default_version == version
    assert Route.objects.get().canary_version is None
    actions = list(RolloutEvent.objects.values_list("action", flat=True))
    assert actions == ["promoted", "advanced", "started"]


def test_errors_roll_back_and_the_numbers_are_kept(traffic, rollout):
    traffic.send(8, chance=0.2, fault="MODEL_ERROR", status=500, code="MODEL_ERROR")

    step(now=timezone.now())

    found = current()
    assert found.state == Rollout.State.ROLLED_BACK
    assert "8 of 8 calls to the canary failed" in found.reason
    assert Route.objects.get().canary_version is None
    assert Route.objects.get().default_version == rollout.default_version
    event = RolloutEvent.objects.first()
    assert (event.action, event.guard, event.by) == ("rolled back", "errors", None)
    assert event.sums["canary"]["faults"] == 8


def test_what_a_caller_did_wrong_rolls_nothing_back(traffic):
    traffic.send(100, status=400, code="INVALID_INPUT")

    step(now=timezone.now())

    assert current().state == Rollout.State.RUNNING
    assert stored_sums.read(current()).canary.calls == 0


def test_calls_are_counted_once_whatever_is_read_again(traffic, home):
    traffic.send(7)
    ledger.ingest(home.spool, now=later())
    ledger.ingest(home.spool, now=later())

    assert stored_sums.read(current()).canary.calls == 7


def test_calls_of_another_canary_do_not_count(traffic, rollout):
    traffic.canary = rollout.version.version + 100

    traffic.send(7)

    assert stored_sums.read(current()).canary.calls == 0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda route: routes.set_canary_weight(route, weight_percent=30, by=None),
            "30 % by hand instead of 5 %",
        ),
        (lambda route: routes.stop_canary(route, by=None), "no canary any more"),
        (lambda route: Route.objects.update(enabled=False), "switched off"),
    ],
)
def test_a_change_by_hand_pauses_it(served, change, words):
    change(Route.objects.get())

    step(now=timezone.now())

    assert current().state == Rollout.State.PAUSED
    assert words in current().reason


def test_resuming_sets_its_own_weight_again(served):
    routes.set_canary_weight(Route.objects.get(), weight_percent=30, by=None)
    step(now=timezone.now())

    conduct.resume(current(), by=None)

    assert Route.objects.get().canary_weight_percent == 5


def test_it_cannot_be_resumed_without_its_canary(served):
    routes.stop_canary(Route.objects.get(), by=None)
    step(now=timezone.now())

    with pytest.raises(RouteError, match="changed by hand"):
        conduct.resume(current(), by=None)


def test_a_quarantined_canary_is_rolled_back(served, rollout):
    VersionConditionFactory(
        model=rollout.registered_model.name,
        version=rollout.version.version,
        quarantined_at=timezone.now(),
        reason="its process died twice",
    )

    step(now=timezone.now())

    assert current().state == Rollout.State.ROLLED_BACK
    assert "died twice" in current().reason


def test_a_paused_rollout_does_nothing_by_itself(traffic):
    conduct.pause(current(), by=None, reason="lunch")
    traffic.send(12, chance=0.05, fault="MODEL_ERROR", status=500)

    step(now=later())

    assert current().state == Rollout.State.PAUSED


def test_the_second_of_two_people_is_told(served):
    conduct.promote(current(), by=UserFactory())

    with pytest.raises(RouteError, match="promoted by now"):
        conduct.roll_back(Rollout.objects.get(), by=UserFactory())


def test_who_saw_another_stage_is_told(served):
    conduct.advance(current(), by=UserFactory(), seen_stage=0)

    with pytest.raises(RouteError, match="stage 2 by now"):
        conduct.advance(Rollout.objects.get(), by=UserFactory(), seen_stage=0)


def test_who_started_it_cannot_be_the_second_person(version):
    plan = Plan(stages=(Stage(5),), last_step="second_person")
    first, second = UserFactory(), UserFactory()
    rollout = conduct.start(version, by=first, plan=plan)

    with pytest.raises(RouteError, match="second person"):
        conduct.promote(rollout, by=first)
    conduct.promote(rollout, by=second)

    assert current().state == Rollout.State.PROMOTED


def test_a_clock_that_was_set_back_decides_nothing(traffic):
    traffic.send(20)

    step(now=datetime(2020, 1, 1, tzinfo=UTC))

    assert current().state == Rollout.State.RUNNING
    assert current().stage == 0


def test_moves_are_counted_once_they_are_committed(
    rollout, django_capture_on_commit_callbacks
):
    def counted():
        return {
            number.labels: number.value
            for number in HERE.numbers()
            if number.name == "rollout_moves"
        }

    before = counted().get(("paused", "dealing"), 0)

    with django_capture_on_commit_callbacks(execute=True):
        conduct.pause(rollout, by=None, reason="odd", guard="dealing")
        assert counted().get(("paused", "dealing"), 0) == before

    assert counted()["paused", "dealing"] == before + 1


@pytest.mark.parametrize("by_hand", [True, False])
def test_a_promotion_inherits_the_override_of_its_rollout(route, by_hand):
    version = breaking_version(route)
    administrator = UserFactory(is_superuser=True)
    override = Override("All customers agreed.")

    rollout = conduct.start(version, by=administrator, plan=PLAN, override=override)
    conduct.promote(rollout, by=UserFactory() if by_hand else None)

    route.refresh_from_db()
    assert route.default_version == version
    started = RolloutEvent.objects.get(action="started")
    assert "Callers may break: All customers agreed." in started.reason
    reason = route.history.latest().history_change_reason
    assert "All customers agreed." in reason


def test_an_override_covers_nothing_that_breaks_later(route):
    version = breaking_version(route)
    override = Override("All customers agreed.")
    administrator = UserFactory(is_superuser=True)
    rollout = conduct.start(version, by=administrator, plan=PLAN, override=override)
    # Registered again in MLflow under its number, with fewer labels.
    version.metadata = {**version.metadata, "labels": ["small"]}
    version.save()

    with pytest.raises(RouteError, match=r"the labels are small.*End the rollout"):
        conduct.promote(rollout, by=None)

    assert Route.objects.get().default_version != version


def test_a_rollout_of_a_breaking_version_does_not_start(route):
    with pytest.raises(RouteError, match="Label large: is gone"):
        conduct.start(breaking_version(route), by=UserFactory(), plan=PLAN)

    assert not Rollout.objects.exists()
    assert Route.objects.get().canary_version is None


@pytest.mark.parametrize("broken", ["plan", "sums"])
def test_a_rollout_that_cannot_count_is_paused_and_usage_is_recorded(
    traffic, broken, caplog
):
    rollout = current()
    value = getattr(rollout, broken)
    # As newer code may have written it.
    value |= {"later": 1} if broken == "plan" else {"errors": [0.0]}
    rollout.save()

    traffic.send(7)

    assert current().state == Rollout.State.PAUSED
    assert "could not be counted" in current().reason
    assert sum(Usage.objects.values_list("requests", flat=True)) == 207


@pytest.mark.parametrize("guard", ["errors", "by hand", "counting"])
def test_whoever_resumes_sums_of_other_code_counts_anew(traffic, guard):
    traffic.send(7)
    conduct.pause(current(), by=None, reason="an upgrade", guard=guard)
    Rollout.objects.update(sums={"errors": {"of": "other code"}})

    conduct.resume(current(), by=UserFactory())

    assert stored_sums.read(current()).canary.calls == 0


def test_a_new_default_is_not_taken_for_what_paused_it(traffic, version):
    conduct.pause(current(), by=None, reason="other predictions", guard="drift")
    newer = ModelVersionFactory(registered_model=version.registered_model)
    routes.make_default(newer, by=UserFactory())

    conduct.resume(current(), by=UserFactory())

    sums = stored_sums.read(current())
    assert current().default_version == newer
    assert not sums.predictions.accepted
    # Late feedback on calls beside the former default is no evidence.
    assert sums.feedback.counts_from > current().started_at.timestamp()


def test_a_rollout_that_cannot_decide_is_paused_and_others_go_on(served):
    Rollout.objects.update(sums={})

    step(now=timezone.now())

    assert current().state == Rollout.State.PAUSED
    assert "could not decide" in current().reason


def test_nothing_counts_before_the_first_stage(home, rollout):
    Traffic(home.spool, current()).send(7, fault="MODEL_ERROR", status=500)

    assert stored_sums.read(current()).canary.calls == 0


def test_a_paused_rollout_counts_nothing(traffic):
    conduct.pause(current(), by=None, reason="lunch")

    traffic.send(7)

    assert stored_sums.read(current()).canary.calls == 0


def test_resuming_lets_the_guard_that_paused_it_begin_again(traffic, served):
    rollout = current()
    sums = stored_sums.read(rollout)
    sums.dealing = [50.0] * len(sums.dealing)
    rollout.sums = stored_sums.as_json(sums)
    rollout.save()
    step(now=timezone.now())
    assert RolloutEvent.objects.first().guard == "dealing"

    conduct.resume(current(), by=None)
    served()
    step(now=timezone.now())

    assert current().state == Rollout.State.RUNNING


def test_other_predictions_pause_it_until_a_person_accepts_them(traffic, served):
    traffic.send(200, to_canary=False, chance=0.0, predicted=1)
    # So close together that they cannot be held against the dealing.
    traffic.send(60, chance=0.2, predicted=2, apart_s=0.25)
    step(now=timezone.now())
    assert current().state == Rollout.State.PAUSED
    assert "resume: that accepts its predictions" in current().reason
    kept = RolloutEvent.objects.first().sums["predictions"]
    assert sum(kept["canary"]) == 60
    assert "first" not in kept

    conduct.resume(current(), by=UserFactory())
    served()
    step(now=timezone.now())

    assert current().state == Rollout.State.RUNNING


def test_a_canary_that_fails_while_it_waits_for_approval_is_rolled_back(traffic):
    conduct.ask(current(), reason="complete")
    traffic.send(8, chance=0.2, fault="MODEL_ERROR", status=500, code="MODEL_ERROR")

    step(now=timezone.now())

    assert current().state == Rollout.State.ROLLED_BACK


def test_a_promotion_that_is_refused_pauses_with_the_reason(traffic, served, version):
    conduct.advance(current(), by=None)
    served()
    traffic.send(200, to_canary=False, chance=0.0)
    traffic.send(800)
    version.missing_since = timezone.now()
    version.save()

    step(now=later())

    assert current().state == Rollout.State.PAUSED
    assert "no longer in MLflow" in current().reason


def test_a_canary_that_hangs_until_its_callers_give_up_is_rolled_back(traffic):
    gave_up = {"status": 499, "code": "CLIENT_LEFT", "given_up_rows": 1}
    traffic.send(15, chance=0.5, total_us=5_000_000, **gave_up)

    step(now=timezone.now())

    assert current().state == Rollout.State.ROLLED_BACK
    assert "15 of 15 calls to the canary were slower" in current().reason
    assert stored_sums.read(current()).canary.calls == 0


@pytest.mark.parametrize(("act", "weight"), [("resume", 5), ("advance", 50)])
def test_going_on_after_a_change_by_hand_writes_one_row_of_history(served, act, weight):
    routes.set_canary_weight(Route.objects.get(), weight_percent=30, by=None)
    step(now=timezone.now())
    rows = Route.history.count()

    getattr(conduct, act)(current(), by=UserFactory())

    assert Route.objects.get().canary_weight_percent == weight
    assert Route.history.count() == rows + 1


def test_a_paused_rollout_that_cannot_be_rolled_back_stops_no_other(served, rollout):
    conduct.pause(current(), by=None, reason="lunch")
    VersionConditionFactory(
        model=rollout.registered_model.name,
        version=rollout.version.version,
        quarantined_at=timezone.now(),
    )
    # As no code writes it.
    Rollout.objects.update(sums=[])

    step(now=timezone.now())

    assert (current().state, current().reason) == (Rollout.State.PAUSED, "lunch")
