"""Keep feedback once for each instance of a call, joined to the version that answered.

Sums and rollouts are fed later, by the controller: `controller/rollouts/feedback.py`.
"""

import contextlib
import datetime
import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from django.conf import settings
from django.db.models import F

from accounts.admission.limit_words import counted
from accounts.admission.limits import ReachedLimit
from accounts.metering.calls import CallIndex, StillReading
from accounts.metering.event import UsageEvent
from accounts.models import ApiKey
from accounts.usage import grains
from inference.errors.api_error import ApiError, ErrorCode, Problem
from inference.errors.problems import with_facts
from inference.feedback.items import Item
from inference.metrics.counts import HERE
from inference.models import Feedback, FeedbackUse

# How long after a call, and how long rows are kept.
KEPT = datetime.timedelta(days=7)
# Not all at once: a transaction of SQLite keeps others waiting.
_DELETED_AT_ONCE = 5_000
_MOST_DELETIONS = 20
_READING_RETRY_S = 2.0


@dataclass(frozen=True, slots=True)
class Kept:
    """Feedback that is stored, and the call that it is about."""

    item: Item
    event: UsageEvent
    # Nothing was stored before, or something else.
    is_new: bool


def spend(customer_id: int, items: int, *, now: datetime.datetime) -> None:
    """Count items of a customer's day; raises ApiError QUOTA_EXCEEDED."""
    most, day = settings.MODELYARD_FEEDBACK_PER_DAY, now.date()
    mine, _ = FeedbackUse.objects.get_or_create(customer_id=customer_id, day=day)
    rows = FeedbackUse.objects.filter(pk=mine.pk, items__lte=most - items)
    if rows.update(items=F("items") + items):
        return
    HERE.add("feedback", "over_limit", by=items)
    midnight = datetime.datetime.combine(
        day + datetime.timedelta(days=1), datetime.time(), datetime.UTC
    )
    raise ApiError(
        ErrorCode.QUOTA_EXCEEDED,
        f"You may send feedback on {counted(most, 'instances')} a day. Go on tomorrow "
        "(UTC): calls of today can still get it then.",
        retry_after_s=(midnight - now).total_seconds(),
        limit=ReachedLimit(
            name="feedback",
            scope="customer",
            source="site",
            unit="instances",
            maximum=most,
            used=mine.items,
            needed=items,
            window_s=86_400,
            resets_at=int(midnight.timestamp()),
        ),
    )


@contextlib.contextmanager
def given_back(
    customer_id: int, items: int, *, now: datetime.datetime
) -> Iterator[None]:
    """Take items from a customer's day again if the calls cannot be looked up yet."""
    try:
        yield
    except ApiError as error:
        if error.code is ErrorCode.OVERLOADED:
            mine = FeedbackUse.objects.filter(customer_id=customer_id, day=now.date())
            mine.update(items=F("items") - items)
        raise


def keep(
    key: ApiKey, items: Sequence[Item], *, now: datetime.datetime
) -> list[Kept | ApiError]:
    """Store what is said of calls of the key's customer; return what became of each.

    Raises ApiError OVERLOADED while the calls of the last days are read first.
    """
    calls = _calls(key.customer_id, {item.request_id for item in items})
    found = [_join(key, item, calls.get(item.request_id), now=now) for item in items]
    joined = [each for each in found if isinstance(each, Kept)]
    stored = _stored({kept.event.id for kept in joined})
    answers: list[Kept | ApiError] = []
    # By what must be unique in one statement: the last item of an instance counts.
    changed: dict[tuple[str, int], Feedback] = {}
    for each in found:
        if isinstance(each, Kept):
            place = (each.event.id, each.item.index)
            before = stored.get(place)
            is_new = before != each.item.said
            if is_new:
                changed[place] = _row(each, now=now)
                stored[place] = each.item.said
            result = "repeated"
            if is_new:
                result = "accepted" if before is None else "replaced"
            HERE.add("feedback", result)
            answers.append(Kept(each.item, each.event, is_new))
        else:
            answers.append(each)
    Feedback.objects.bulk_create(
        # In one order, so that two requests never wait for each other.
        [changed[place] for place in sorted(changed)],
        update_conflicts=True,
        unique_fields=["call_id", "index"],
        update_fields=["said", "given_at", "counted_at"],
    )
    return answers


def delete_old(*, now: datetime.datetime) -> None:
    """Delete what is in the sums and too old to be corrected."""
    old = Feedback.objects.filter(given_at__lt=now - KEPT).exclude(counted_at=None)
    ids = old.order_by("given_at").values_list("pk", flat=True)
    for _ in range(_MOST_DELETIONS):
        some = [*ids[:_DELETED_AT_ONCE]]
        Feedback.objects.filter(pk__in=some).delete()
        if len(some) < _DELETED_AT_ONCE:
            break
    FeedbackUse.objects.filter(day__lt=(now - 4 * KEPT).date()).delete()


@functools.lru_cache(maxsize=1)
def _index(spool: Path) -> CallIndex:
    return CallIndex(spool)


def _calls(customer_id: int, request_ids: set[str]) -> Mapping[str, UsageEvent]:
    try:
        return _index(settings.HOME.spool).find(customer_id, request_ids)
    except StillReading:
        raise ApiError(
            ErrorCode.OVERLOADED,
            "The calls of the last days are being read. Try again in a moment.",
            retry_after_s=_READING_RETRY_S,
        ) from None


def _join(
    key: ApiKey, item: Item, event: UsageEvent | None, *, now: datetime.datetime
) -> Kept | ApiError:
    """Find out whether the call can get this feedback."""
    may_see = not key.allowed_models or (
        event is not None and event.model in key.allowed_models
    )
    if event is None or not may_see:
        HERE.add("feedback", "unknown")
        return ApiError(
            ErrorCode.NOT_FOUND,
            f"None of your answered calls of the last {KEPT.days} days has this "
            "request id.",
        )
    if now.timestamp() - event.at > KEPT.total_seconds():
        HERE.add("feedback", "too_late")
        return ApiError(
            ErrorCode.UNPROCESSABLE,
            f"Too late: feedback is taken for {KEPT.days} days after a call, and this "
            f"one was at {grains.utc(event.at):%Y-%m-%d %H:%M} UTC.",
        )
    if not event.version:
        HERE.add("feedback", "invalid")
        return ApiError(
            ErrorCode.UNPROCESSABLE,
            "No version answered this call: the route's fixed answer stood in.",
        )
    if item.index >= event.rows:
        HERE.add("feedback", "invalid")
        issue = (
            f"must be less than {event.rows}, the number of the call's instances that "
            "were answered"
        )
        code = ErrorCode.UNPROCESSABLE
        return with_facts([Problem(issue=issue, field="index", code=code)])
    return Kept(item, event, is_new=True)


def _stored(call_ids: set[str]) -> dict[tuple[str, int], dict[str, float]]:
    rows = Feedback.objects.filter(call_id__in=call_ids)
    return {
        (call_id, index): said
        for call_id, index, said in rows.values_list("call_id", "index", "said")
    }


def _row(kept: Kept, *, now: datetime.datetime) -> Feedback:
    event, dealt = kept.event, kept.event.dealt
    return Feedback(
        customer_id=event.customer_id,
        call_id=event.id,
        index=kept.item.index,
        called_at=grains.utc(event.at),
        key_id=event.key_id,
        model=event.model,
        version=event.version,
        to_canary=dealt is not None and dealt.to_canary,
        # A sticky caller was dealt once, so its calls are not as many proofs.
        chances={} if dealt is None or dealt.unit else dealt.chances,
        said=kept.item.said,
        given_at=now,
    )
