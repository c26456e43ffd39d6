"""Count usage events for the rollouts of their models, each event once.

This runs in the transaction that records the events (`accounts/usage/recording.py`), so
no crash and no restart counts a call twice or loses it. A rollout that cannot count is
paused: usage of all customers must not wait for it.
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable

import structlog

from accounts.metering.event import Dealt, UsageEvent
from inference.controller.rollouts import conduct, stored_sums
from inference.models import Rollout
from inference.rollouts.counting import CountedCall, Sums

# A paused one counts nothing: somebody may have given its route another default.
_COUNTING = (Rollout.State.WAITING, Rollout.State.RUNNING, Rollout.State.APPROVAL)

logger = structlog.get_logger(__name__)


def count_each(
    models: Collection[str],
    count: Callable[[Rollout], Sums | None],
    *,
    what: str,
) -> None:
    """Lock the rollouts that count calls of these models, and let each count.

    `count` returns the new sums, or None if there is nothing to count; `what` names in
    a reason what it counts. It must touch no database: one that fails pauses its
    rollout, and the transaction goes on.
    """
    rollouts = Rollout.objects.select_for_update(of=("self",)).filter(
        state__in=_COUNTING, registered_model__name__in=models
    )
    rollouts = rollouts.select_related("registered_model", "version", "default_version")
    # In one order, so that two transactions never wait for each other.
    for rollout in rollouts.order_by("pk"):
        try:
            sums = count(rollout)
            value = None if sums is None else stored_sums.as_json(sums)
        except Exception as error:
            # Its plan or its sums are of other code.
            logger.exception("rollout_not_counted", rollout=rollout.pk)
            reason = f"{what} could not be counted: {error}"
            conduct.pause(rollout, by=None, reason=reason, guard="counting")
        else:
            if value is not None:
                rollout.sums = value
                rollout.save(update_fields=["sums"])


def feed(events: Iterable[UsageEvent], *, also_lock: Collection[str] = ()) -> None:
    """Add the calls that a route with canaries dealt to the sums of their rollouts.

    Rollouts of the models `also_lock` are locked as well.
    """
    dealt = defaultdict(list)
    for event in events:
        if event.dealt is not None:
            dealt[event.model].append(event)
    models = dealt.keys() | also_lock
    if models:
        count_each(
            models,
            lambda rollout: _count(rollout, dealt[rollout.registered_model.name]),
            what="Its calls",
        )


def _count(rollout: Rollout, events: Iterable[UsageEvent]) -> Sums | None:
    """Return the sums with the calls that its canary or the default got, if any."""
    calls = [
        _call(event, event.dealt, chance)
        for event in events
        if event.dealt is not None
        and (chance := event.dealt.chances.get(rollout.version.version)) is not None
    ]
    if not calls:
        return None
    counter = stored_sums.counter_of(stored_sums.plan_of(rollout))
    sums = stored_sums.read(rollout)
    for call in calls:
        counter.add(sums, call)
    return sums


def _call(event: UsageEvent, dealt: Dealt, chance: float) -> CountedCall:
    fault = dealt.fault
    gave_up = dealt.given_up_rows > 0 and event.operation != "stream"
    rows = dealt.given_up_rows if gave_up else event.rows
    return CountedCall(
        at=event.at,
        key_id=event.key_id,
        on_canary=dealt.to_canary,
        chance=chance,
        unit=dealt.unit,
        size=f"{event.operation} {rows.bit_length()}",
        total_us=event.total_us,
        fault=fault,
        refused=event.status >= 400 and not fault and not gave_up,
        gave_up=gave_up,
        # A stream lasts as long as its reader wants.
        cached=event.cached or event.operation == "stream",
        is_stream=event.operation == "stream",
        predicted=dealt.predicted,
    )
