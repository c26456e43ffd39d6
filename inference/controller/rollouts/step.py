"""Look at each active rollout, and do what its plan and its numbers say."""

import contextlib
from datetime import datetime, timedelta

import django.db
import structlog
from django.db import transaction

from inference.controller.rollouts import conduct, stored_sums
from inference.controller.rollouts.conduct import State
from inference.models import Rollout, ServingRoute, VersionCondition
from inference.rollouts.deciding import Move, decide, guard
from registry.routes import RouteError
from registry.rules.rollout_plans import Plan

_CLOCK_TOLERANCE_S = 5.0

logger = structlog.get_logger(__name__)


def step(*, now: datetime) -> None:
    """Take one step with each active rollout, each in its own transaction."""
    active = Rollout.objects.filter(state__in=Rollout.ACTIVE).only("pk")
    for rollout in active.order_by("pk"):
        try:
            with transaction.atomic():
                _step(conduct.lock(rollout), now=now)
        except (RouteError, Rollout.DoesNotExist) as error:
            # Somebody ended it, or changed the route, since it was read.
            logger.info("rollout_not_moved", rollout=rollout.pk, reason=str(error))
        except (django.db.OperationalError, django.db.InterfaceError):
            raise
        except Exception as error:
            # The others go on.
            logger.exception("rollout_step_failed", rollout=rollout.pk)
            reason = f"It could not decide: {error}"
            # It may be paused already, or have ended.
            with contextlib.suppress(RouteError):
                conduct.pause(rollout, by=None, reason=reason, guard="deciding")


def _step(rollout: Rollout, *, now: datetime) -> None:
    reason = _why_quarantined(rollout)
    if reason:
        conduct.roll_back(rollout, by=None, reason=reason, guard="quarantine")
        return
    if rollout.state == State.PAUSED:
        return
    # Locked, so that no change by hand comes between the look and the move.
    by_hand = conduct.changed_by_hand(
        rollout, conduct.lock_route(rollout.registered_model_id)
    )
    if by_hand:
        conduct.pause(rollout, by=None, reason=by_hand, guard="by hand")
        return
    plan, sums = stored_sums.plan_of(rollout), stored_sums.read(rollout)
    if rollout.state != State.RUNNING or rollout.stage_began_at is None:
        # Its canary may have calls already, or still.
        move = guard(plan, sums)
        if move is not None:
            _apply(rollout, move, plan, now=now)
        elif rollout.state == State.WAITING:
            _wait(rollout, plan, now=now)
        return
    lost = _why_lost(rollout)
    if lost:
        conduct.pause(rollout, by=None, reason=lost, guard="serving")
        return
    stage_s = (now - rollout.stage_began_at).total_seconds()
    if stage_s < -_CLOCK_TOLERANCE_S:
        # The clock was set back, and nothing would count until it is there again.
        conduct.begin_serving(rollout, now=now)
        return
    move = decide(plan, sums, stage=rollout.stage, stage_s=max(0.0, stage_s))
    _apply(rollout, move, plan, now=now)


def _wait(rollout: Rollout, plan: Plan, *, now: datetime) -> None:
    """Begin the stage once gateways are told of its weight, or say why they are not."""
    # Whatever made it wait was noted.
    since = rollout.events.latest("at").at
    if rollout.weight_percent != plan.stages[rollout.stage].weight_percent:
        no_room = conduct.no_room(rollout, rollout.stage)
        if no_room:
            reason = f"Waits for room: {no_room}"
            _say_or_pause(rollout, plan, reason, since=since, now=now)
        else:
            conduct.enter(rollout)
        return
    served = _served(rollout)
    if served is not None and _is_served(rollout, served):
        conduct.begin_serving(rollout, now=now)
        return
    reason = rollout.version.serving_problem
    if not reason and served is not None and served.waiting_for:
        reason = f"Waits: {served.waiting_for}."
    reason = reason or rollout.reason
    _say_or_pause(rollout, plan, reason, since=since, now=now)


def _served(rollout: Rollout) -> ServingRoute | None:
    return ServingRoute.objects.filter(model=rollout.registered_model.name).first()


def _is_served(rollout: Rollout, served: ServingRoute) -> bool:
    """Return whether gateways are told of the stage's weight."""
    weights = dict(served.canaries)
    return rollout.weight_percent == weights.get(rollout.version.version)


def _why_lost(rollout: Rollout) -> str:
    """Return why a canary gets no calls any more; empty if it gets them."""
    served = _served(rollout)
    if served is None or _is_served(rollout, served):
        return ""
    why = rollout.version.serving_problem or served.waiting_for
    return f"It gets no calls any more. {why}".rstrip()


def _say_or_pause(
    rollout: Rollout, plan: Plan, reason: str, *, since: datetime, now: datetime
) -> None:
    """Say why it waits; pause it, which its followers are told, if that lasts long."""
    most = plan.most_minutes
    if now - since < timedelta(minutes=most):
        _say(rollout, reason)
        return
    reason = f"It has not gone on for {most:g} minutes. {reason}"
    conduct.pause(rollout, by=None, reason=reason, guard="waiting")


def _say(rollout: Rollout, reason: str) -> None:
    if reason != rollout.reason:
        rollout.reason = reason
        rollout.save(update_fields=["reason"])


def _apply(rollout: Rollout, move: Move, plan: Plan, *, now: datetime) -> None:
    if move.action == "stay":
        _say(rollout, move.reason)
        return
    if move.action == "advance":
        no_room = conduct.no_room(rollout, rollout.stage + 1)
        if no_room:
            reason = f"{move.reason} The next stage waits for room: {no_room}"
            since = rollout.stage_began_at or now
            _say_or_pause(rollout, plan, reason, since=since, now=now)
            return
    logger.info(
        "rollout_moved",
        rollout=rollout.pk,
        model=rollout.registered_model.name,
        version=str(rollout.version.version),
        action=move.action,
        guard=move.guard,
    )
    if move.action == "advance":
        conduct.advance(rollout, by=None, reason=move.reason)
    elif move.action == "promote":
        _promote(rollout, move)
    elif move.action == "ask":
        conduct.ask(rollout, reason=move.reason)
    elif move.action == "pause":
        conduct.pause(rollout, by=None, reason=move.reason, guard=move.guard)
    else:
        conduct.roll_back(rollout, by=None, reason=move.reason, guard=move.guard)


def _promote(rollout: Rollout, move: Move) -> None:
    """Promote it, or pause and say why that is refused: waiting does not help."""
    try:
        with transaction.atomic():
            conduct.promote(rollout, by=None, reason=move.reason)
    except RouteError as error:
        conduct.pause(rollout, by=None, reason=str(error), guard="promotion")


def _why_quarantined(rollout: Rollout) -> str:
    condition = VersionCondition.objects.filter(
        model=rollout.registered_model.name,
        version=rollout.version.version,
        quarantined_at__isnull=False,
    ).first()
    return f"It is quarantined: {condition.reason}" if condition else ""
