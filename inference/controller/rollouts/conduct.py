"""Start, pause, resume and end rollouts: what people may do, and what the steps use.

Each function locks the rollout and looks at its state again, so that of two people who
act at the same time the second is told.
"""

from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Any

from django.db import IntegrityError, transaction
from django.utils import timezone

from inference.controller.rollouts import stored_sums
from inference.metrics.counts import HERE
from inference.models import Rollout, RolloutEvent
from inference.rollouts import counting
from registry import routes, schema_gate
from registry.changes import Person
from registry.models import ModelVersion, RolloutPlan, Route
from registry.routes import RouteError
from registry.rules import rollout_plans
from registry.rules.rollout_plans import Plan
from registry.schema_gate import Override

State = Rollout.State
# The states in which each action is possible.
POSSIBLE_IN: dict[str, tuple[str, ...]] = {
    "advance": (State.WAITING, State.RUNNING, State.PAUSED),
    "pause": (State.WAITING, State.RUNNING, State.APPROVAL),
    "resume": (State.PAUSED,),
    "promote": Rollout.ACTIVE,
    "roll_back": Rollout.ACTIVE,
}
# Seconds since the epoch, later than any call; JSON has no infinity.
_NEVER = 1e15
# Pauses because something could not be read: all that was counted may be wrong.
_COUNT_ANEW = ("counting", "deciding")
# Gateways read a new snapshot within a second.
_SNAPSHOT_TAKES = timedelta(seconds=1)


def start(
    version: ModelVersion,
    *,
    by: Person,
    plan: Plan | None = None,
    override: Override | None = None,
    why: str = "",
) -> Rollout:
    """Make `version` the canary by a plan: the given one, or else its route's.

    Several versions of a route may have rollouts at once. If the others leave no room
    for the first stage, this one waits with a weight of 0.

    Raises RouteError, also for a version that cannot be loaded. The promotion at the
    end inherits `override` for the differences that there are now.
    """
    if version.serving_problem:
        raise RouteError(f"{version} cannot be served: {version.serving_problem}")
    name = version.registered_model.name
    with transaction.atomic():
        route = lock_route(version.registered_model_id)
        if route is None:
            raise RouteError(
                f"{name} has no default version yet. Make one the default first."
            )
        plan = plan or plan_of_route(route)
        weight = plan.stages[0].weight_percent
        no_room = routes.why_no_room(route, version, weight)
        weight = 0 if no_room else weight
        default = route.default_version
        _set_shadow(route, version, plan, by=by, override=override)
        why = f"stage 1 of a rollout; {why}" if why else "stage 1 of a rollout"
        routes.start_canary(
            version, weight_percent=weight, by=by, override=override, why=why
        )
        sums = stored_sums.counter_of(plan).start()
        # Nothing counts before its first stage, nor what came late of earlier ones.
        counting.begin_stage(sums, counts_from=_NEVER)
        try:
            with transaction.atomic():
                rollout = Rollout.objects.create(
                    registered_model=version.registered_model,
                    version=version,
                    default_version=default,
                    plan=stored_sums.as_json(plan),
                    weight_percent=weight,
                    sums=stored_sums.as_json(sums),
                    reason=_waits_for(no_room),
                    override_reason="" if override is None else override.reason,
                    override_allows=schema_gate.breaking_between(default, version),
                    started_at=timezone.now(),
                    started_by=_user(by),
                )
        except IntegrityError:
            message = f"{version} has an unfinished rollout. End it first."
            raise RouteError(message) from None
        why = rollout.override_reason
        why = f" Callers may break: {why}" if why else ""
        note(rollout, "started", f"{rollout.reason}{why}", by=by)
    return rollout


def start_unless_running(version: ModelVersion, *, why: str) -> None:
    """Start a rollout by the route's plan, unless one of `version` is under way.

    Raises RouteError beside one of another version: only people decide that two run.
    """
    model = version.registered_model
    active = Rollout.objects.filter(state__in=Rollout.ACTIVE, registered_model=model)
    versions = set(active.values_list("version", flat=True))
    if version.pk in versions:
        return
    if versions:
        raise RouteError(f"{model.name} has an unfinished rollout. End it first.")
    start(version, by=None, why=why)


def plan_of_route(route: Route) -> Plan:
    """Return the plan that the route names, or the usual one; raises RouteError."""
    return Plan() if route.rollout_plan is None else plan_named(route.rollout_plan)


def plan_named(named: RolloutPlan) -> Plan:
    """Read a stored plan; raises RouteError."""
    try:
        return rollout_plans.parse(named.plan)
    except ValueError as error:
        raise RouteError(f"The plan {named}: {error}") from error


def pause(rollout: Rollout, *, by: Person, reason: str, guard: str = "") -> None:
    """Keep the weight as it is until somebody resumes, or ends it."""
    with transaction.atomic():
        rollout = lock(rollout, among=POSSIBLE_IN["pause"])
        _write(rollout, state=State.PAUSED, reason=reason)
        note(rollout, "paused", reason, by=by, guard=guard)


def resume(rollout: Rollout, *, by: Person) -> None:
    """Go on with the stage in which it was paused, from its start.

    Time, calls and the threshold for slow answers begin again. Evidence stays, except
    of the guard that paused it: the person has looked at that. After a change of the
    default all evidence begins again.
    """
    with transaction.atomic():
        rollout = lock(rollout, among=POSSIBLE_IN["resume"])
        if not _compare_with_new_default(rollout, by=by):
            _forget_why_paused(rollout)
        _begin_stage(rollout, rollout.stage, reason="Resumed.", by=by)
        note(rollout, "resumed", rollout.reason, by=by)


def advance(
    rollout: Rollout, *, by: Person, reason: str = "", seen_stage: int | None = None
) -> None:
    """Go to the next stage; raises RouteError from the last one."""
    with transaction.atomic():
        rollout = lock(rollout, among=POSSIBLE_IN["advance"])
        if seen_stage is not None and rollout.stage != seen_stage:
            raise RouteError(f"It is in stage {rollout.stage + 1} by now. Look again.")
        if rollout.stage + 1 >= len(stored_sums.plan_of(rollout).stages):
            raise RouteError("It is in its last stage. Promote it, or roll it back.")
        if rollout.state == State.PAUSED:
            _forget_why_paused(rollout)
        reason = reason or "Advanced by hand."
        _begin_stage(rollout, rollout.stage + 1, reason=reason, by=by)
        note(rollout, "advanced", reason, by=by)


def no_room(rollout: Rollout, stage: int) -> str:
    """Return why a stage's weight does not fit beside others; empty if it does."""
    route = _current_route(rollout)
    weight = stored_sums.plan_of(rollout).stages[stage].weight_percent
    return routes.why_no_room(route, rollout.version, weight)


def enter(rollout: Rollout) -> None:
    """Take the weight of the stage, for which there was no room before."""
    with transaction.atomic():
        rollout = lock(rollout, among=(State.WAITING,))
        reason = "There is room for it now."
        _begin_stage(rollout, rollout.stage, reason=reason, by=None)
        note(rollout, "entered", reason, by=None)


def ask(rollout: Rollout, *, reason: str) -> None:
    """Wait for a second person to approve the promotion."""
    with transaction.atomic():
        rollout = lock(rollout, among=(State.RUNNING,))
        _write(rollout, state=State.APPROVAL, reason=reason)
        note(rollout, "waits for approval", reason, by=None)


def promote(rollout: Rollout, *, by: Person, reason: str = "", guard: str = "") -> None:
    """Make the canary the default.

    Raises RouteError if the plan wants a second person and `by` started the rollout.
    """
    with transaction.atomic():
        rollout = lock(rollout)
        plan = stored_sums.plan_of(rollout)
        user = _user(by)
        needs_another = plan.last_step == "second_person" and user is not None
        if needs_another and user.pk == rollout.started_by_id:
            raise RouteError(
                "You started this rollout, and its plan wants a second person to "
                "promote it."
            )
        route = _current_route(rollout)
        override = _override_of(rollout)
        reason = reason or "Promoted by hand."
        why = f"the end of a rollout. {reason}"
        seen = rollout.version_id
        routes.promote_canary(route, by=by, seen=seen, override=override, why=why)
        _end(rollout, State.PROMOTED, reason)
        note(rollout, "promoted", reason, by=by, guard=guard)


def roll_back(
    rollout: Rollout, *, by: Person, reason: str = "", guard: str = ""
) -> None:
    """Send all traffic to the default again."""
    with transaction.atomic():
        rollout = lock(rollout)
        route = lock_route(rollout.registered_model_id)
        reason = reason or "Rolled back by hand."
        if route is not None and route.weight_of(rollout.version_id) is not None:
            why = f"a rollout was rolled back. {reason}"
            routes.stop_canary(route, by=by, seen=rollout.version_id, why=why)
        if (
            route is not None
            and rollout.plan.get("shadow_percent")
            and route.shadow_version_id == rollout.version_id
        ):
            routes.stop_shadow(route, by=by, why="a rollout was rolled back")
        _end(rollout, State.ROLLED_BACK, reason)
        note(rollout, "rolled back", reason, by=by, guard=guard)


def begin_serving(rollout: Rollout, *, now: datetime) -> None:
    """Begin the stage's time: its weight is served from now on."""
    sums = stored_sums.read(rollout)
    counts_from = now + _SNAPSHOT_TAKES
    counting.begin_stage(
        sums,
        counts_from=counts_from.timestamp(),
        weight_percent=rollout.weight_percent,
    )
    _write(
        rollout,
        state=State.RUNNING,
        reason=f"Stage {rollout.stage + 1} began.",
        stage_began_at=now,
        sums=stored_sums.as_json(sums),
    )


def lock(rollout: Rollout, *, among: Collection[str] = Rollout.ACTIVE) -> Rollout:
    """Lock the row and read it again; raises RouteError if its state is another."""
    rows = Rollout.objects.select_for_update(of=("self",)).select_related(
        "registered_model", "version__registered_model", "default_version"
    )
    found = rows.get(pk=rollout.pk)
    if found.state not in among:
        raise RouteError(
            f"This rollout is {found.get_state_display()} by now: {found.reason}"
        )
    return found


def note(
    rollout: Rollout, action: str, reason: str, *, by: Person, guard: str = ""
) -> None:
    """Keep what was done, by whom, and the numbers of that moment."""
    RolloutEvent.objects.create(
        rollout=rollout,
        at=timezone.now(),
        action=action,
        stage=rollout.stage,
        weight_percent=rollout.weight_percent,
        reason=reason,
        guard=guard,
        sums=stored_sums.that_decided(rollout),
        by=_user(by),
    )
    transaction.on_commit(lambda: HERE.add("rollout_moves", action, guard))


def changed_by_hand(rollout: Rollout, route: Route | None) -> str:
    """Return how the route differs from what the rollout set; empty if it does not."""
    if route is None:
        return "The route is gone."
    if not route.enabled:
        return "The route was switched off."
    weight = route.weight_of(rollout.version_id)
    if weight is None:
        return "Its version was made no canary any more by hand."
    if route.default_version_id != rollout.default_version_id:
        return (
            f"v{route.default_version.version} is the default now, and its evidence is "
            f"about v{rollout.default_version.version}. Resume to compare it with the "
            "new default from the start, or roll it back."
        )
    if rollout.plan.get("shadow_percent") and (
        route.shadow_version_id != rollout.version_id
    ):
        return "Its version was made no shadow any more by hand."
    if weight != rollout.weight_percent:
        return (
            f"The weight was set to {weight} % by hand instead of "
            f"{rollout.weight_percent} %."
        )
    return ""


def _set_shadow(
    route: Route,
    version: ModelVersion,
    plan: Plan,
    *,
    by: Person,
    override: Override | None,
) -> None:
    """Make the canary the shadow of its route, if the plan wants that.

    Raises RouteError if another is: evidence of two cannot come from one shadow.
    """
    if not plan.shadow_percent or route.shadow_version_id == version.pk:
        return
    if route.shadow_version is not None:
        raise RouteError(
            f"{route.shadow_version} is the shadow of this route. Stop it first, or "
            "choose a plan without a shadow."
        )
    share = plan.shadow_percent
    routes.set_shadow(
        version, percent=share, by=by, override=override, why="for a rollout"
    )


def _override_of(rollout: Rollout) -> Override:
    """Return what its start allowed, for the differences that there were."""
    return Override(rollout.override_reason, frozenset(rollout.override_allows))


def _waits_for(no_room: str) -> str:
    if no_room:
        return f"Waits for room: {no_room}"
    return "Waits until the version is loaded."


def _forget_why_paused(rollout: Rollout) -> None:
    """Let the test of the guard that paused it begin again, or it pauses at once."""
    pauses = rollout.events.filter(action="paused")
    last = pauses.order_by("-at", "-pk").first()
    counter = stored_sums.counter_of(stored_sums.plan_of(rollout))
    try:
        sums = stored_sums.read(rollout)
    except ValueError:
        # Other code has written them.
        sums = counter.start()
    else:
        if last is not None and last.guard in _COUNT_ANEW:
            sums = counter.start()
        elif last is not None:
            counting.forget_evidence(counter, sums, guard=last.guard)
    _write(rollout, sums=stored_sums.as_json(sums))


def _compare_with_new_default(rollout: Rollout, *, by: Person) -> bool:
    """Forget evidence about a version that is not the default any more, if there is.

    Raises RouteError if the canary would break callers of the new default.
    """
    route = lock_route(rollout.registered_model_id)
    if (
        route is None
        or route.default_version_id == rollout.default_version_id
        or route.weight_of(rollout.version_id) is None
    ):
        return False
    default = route.default_version
    refusal = schema_gate.refusal_of(
        default, rollout.version, by=by, override=_override_of(rollout)
    )
    if refusal:
        raise RouteError(refusal)
    sums = stored_sums.counter_of(stored_sums.plan_of(rollout)).start()
    counting.begin_stage(sums, counts_from=_NEVER)
    # Callers may still say something of calls beside the former default.
    sums.feedback.counts_from = timezone.now().timestamp()
    _write(rollout, default_version=default, sums=stored_sums.as_json(sums))
    return True


def _set_weight(
    route: Route, rollout: Rollout, weight_percent: int, *, by: Person, why: str
) -> None:
    seen = rollout.version_id
    routes.set_canary_weight(
        route, weight_percent=weight_percent, by=by, seen=seen, why=why
    )


def _current_route(rollout: Rollout) -> Route:
    route = lock_route(rollout.registered_model_id)
    if (
        route is None
        or route.weight_of(rollout.version_id) is None
        or route.default_version_id != rollout.default_version_id
    ):
        raise RouteError(
            "The route's default or canary was changed by hand. Resume to compare it "
            "with the default of now, or roll it back."
        )
    return route


def _begin_stage(rollout: Rollout, stage: int, *, reason: str, by: Person) -> None:
    """Set a stage's weight; raises RouteError if default or canary are others."""
    plan = stored_sums.plan_of(rollout)
    weight = plan.stages[stage].weight_percent
    route = _current_route(rollout)
    _set_shadow(route, rollout.version, plan, by=by, override=_override_of(rollout))
    if route.weight_of(rollout.version_id) != weight:
        why = f"stage {stage + 1} of a rollout. {reason}"
        _set_weight(route, rollout, weight, by=by, why=why)
    _write(
        rollout,
        state=State.WAITING,
        reason=reason,
        stage=stage,
        weight_percent=weight,
        stage_began_at=None,
    )


def _end(rollout: Rollout, state: str, reason: str) -> None:
    _write(rollout, state=state, reason=reason, ended_at=timezone.now())


def _write(rollout: Rollout, **values: Any) -> None:
    for name, value in values.items():
        setattr(rollout, name, value)
    rollout.save(update_fields=list(values))


def lock_route(model_id: int) -> Route | None:
    routes_of = Route.objects.select_for_update(of=("self",)).select_related(
        "default_version", "rollout_plan", "registered_model"
    )
    return routes_of.filter(registered_model_id=model_id).first()


def _user(by: Person):  # type: ignore[no-untyped-def]  # the configured user model
    return by if by is not None and by.is_authenticated else None
