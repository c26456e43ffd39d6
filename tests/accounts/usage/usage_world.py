"""Write, kill, roll up and prune a usage ledger at random, beside a plain list.

The ledger must always say the same as the list.
"""

import contextlib
import datetime
import random
from collections import Counter
from decimal import Decimal

import msgspec
from django.db import transaction
from django.utils import timezone

from accounts.admission.windows import month_of
from accounts.metering.event import UsageEvent
from accounts.models import UnrolledHour, Usage, UsageDay, UsageHour
from accounts.models.usage import UsageSums
from accounts.usage import billing, reading, recording, retention, roll_ups, spans
from accounts.usage import latencies as usage_latencies
from accounts.usage.grains import DAY, HOUR, day_of, hour_of
from tests.factories import CustomerFactory

KEEP = datetime.timedelta(days=35)
MINUTE = datetime.timedelta(minutes=1)
_LENGTH = 80 * DAY
_SEGMENTS = 4


class Killed(Exception):
    """A process died before its transaction was committed."""


class UsageWorld:
    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.customers = [CustomerFactory.create() for _ in range(2)]
        # The ledger goes by the clock too, so the world ends today.
        self.now = day_of(timezone.now()) - _LENGTH
        self.spool: list[list[UsageEvent]] = [[] for _ in range(_SEGMENTS)]
        self.read = [0] * _SEGMENTS
        self.counted: list[UsageEvent] = []

    def run(self, steps: int) -> None:
        for _ in range(steps):
            step = self.random.choice(
                [
                    *[self._answer] * 4,
                    *[self._ingest] * 4,
                    self._ingest_twice,
                    self._die_ingesting,
                    *[self._roll_up] * 3,
                    self._die_rolling_up,
                    self._mark_again,
                    *[self._forget] * 2,
                    *[self._wait] * 3,
                    self._compare_a_span,
                ]
            )
            step()
        for segment in range(_SEGMENTS):
            self._ingest(segment)
        self._compare_a_span()

    # What happens

    def _answer(self) -> None:
        ago = self.random.choice([5 * MINUTE, 3 * HOUR, 2 * DAY, 60 * DAY])
        for _ in range(self.random.randint(1, 12)):
            at = self.now - self.random.random() * ago
            self.random.choice(self.spool).append(self._event(at))

    def _event(self, at: datetime.datetime) -> UsageEvent:
        customer = self.random.choice(self.customers)
        status, code = self.random.choice(
            [(200, ""), (200, ""), (429, "QUOTA_EXCEEDED"), (503, "OVERLOADED")]
        )
        compute_us = self.random.randrange(3000)
        return UsageEvent(
            id="event",
            at=at.timestamp(),
            customer_id=customer.pk,
            key_id=f"key{customer.pk}-{self.random.randrange(2)}",
            operation=self.random.choice(["predict", "explain"]),
            model=self.random.choice(["digits", "iris"]),
            version=self.random.choice("12"),
            variant="default",
            status=status,
            code=code,
            rows=self.random.randint(1, 9),
            charged=status == 200 and self.random.random() < 0.8,
            compute_us=compute_us,
            total_us=compute_us + self.random.randrange(3000),
            shap_samples=self.random.randrange(3),
            request_id="request",
        )

    def _ingest(self, segment: int | None = None) -> None:
        if segment is None:
            segment = self.random.randrange(_SEGMENTS)
        start = self.read[segment]
        events = self.spool[segment][start:]
        if self._record(segment, start, events):
            self.counted += events
            self.read[segment] = start + len(events)

    def _ingest_twice(self) -> None:
        """Ingest events again, as if another process had lost its commit."""
        segment = self.random.randrange(_SEGMENTS)
        if self.read[segment]:
            events = self.spool[segment][: self.read[segment]]
            assert not self._record(segment, 0, events)

    def _die_ingesting(self) -> None:
        segment = self.random.randrange(_SEGMENTS)
        start = self.read[segment]
        with contextlib.suppress(Killed), transaction.atomic():
            self._record(segment, start, self.spool[segment][start:])
            raise Killed

    def _record(self, segment: int, start: int, events: list[UsageEvent]) -> bool:
        return recording.record(
            f"boot-{segment}.spool", events, start + len(events), start_bytes=start
        )

    def _roll_up(self) -> None:
        budget_s = self.random.choice([-1.0, 0.01, 60.0])
        roll_ups.roll_up(now=self.now, budget_s=budget_s)

    def _die_rolling_up(self) -> None:
        with contextlib.suppress(Killed), transaction.atomic():
            roll_ups.roll_up(now=self.now, budget_s=0.01)
            raise Killed

    def _mark_again(self) -> None:
        start = self.now - self.random.random() * 50 * DAY
        roll_ups.mark_again(start, start + 5 * DAY)

    def _forget(self) -> None:
        retention.forget_minutes(now=self.now, keep=KEEP)

    def _wait(self) -> None:
        self.now += self.random.random() * self.random.choice([HOUR, DAY, 6 * DAY])
        self.now = min(self.now, timezone.now())

    # What has to hold

    def _compare_a_span(self) -> None:
        """Read a span with random ends, as readers do."""
        start, end = sorted(
            self.now - self.random.random() * self.random.choice([2, 40, 150]) * DAY
            for _ in range(2)
        )
        # Where only hours are kept, whole hours can be asked for.
        kept_from = roll_ups.kept_from()
        start, end = (
            at.replace(second=0, microsecond=0) if at >= kept_from else hour_of(at)
            for at in (start, end)
        )
        customer = self.random.choice([*self.customers, None])
        customer_id = None if customer is None else customer.pk
        events = [
            event
            for event in self.counted
            if start.timestamp() <= event.at < end.timestamp()
            and customer_id in (None, event.customer_id)
        ]
        span = spans.between(start, end, customer_id=customer_id)
        assert _facts(reading.totals(span)) == _expected(events)
        by_hour = spans.between(start, end, customer_id=customer_id, grain="hour")
        for bucket, source in (("day", span), ("hour", by_hour)):
            found = reading.over_time(source, bucket, "model", "version")
            assert {
                (row["start"], row["model"], row["version"]): _facts(row)
                for row in found
            } == _per(events, bucket)
        latencies = usage_latencies.latencies(span)
        assert latencies.buckets == Counter(
            usage_latencies.bucket_of(event.total_us) for event in events
        )
        assert latencies.slowest_us == max((it.total_us for it in events), default=0)
        for row in reading.refusals(reading.over_time(span, "day", "status", "code")):
            assert row["count"] == sum(
                (event.status, event.code) == (row["status"], row["code"])
                for event in events
            )

    def settle(self) -> None:
        """Roll up all there is, and compare the tables and the bills."""
        later = timezone.now() + DAY
        roll_ups.roll_up(now=later, budget_s=600)
        assert not UnrolledHour.objects.exists()
        hours, days = _sums(UsageHour), _sums(UsageDay)
        assert hours == days == _sums_of(self.counted)
        kept_from = roll_ups.kept_from()
        kept = [each for each in self.counted if each.at >= kept_from.timestamp()]
        assert _sums(Usage, minute__gte=kept_from) == _sums_of(kept)
        assert _sums(UsageHour, start__gte=kept_from) == _sums_of(kept)
        for customer in self.customers:
            self._compare_the_bills(customer)

    def _compare_the_bills(self, customer: object) -> None:
        charged = [
            event
            for event in self.counted
            if event.charged and event.customer_id == customer.pk
        ]
        billed: Counter[str] = Counter()
        month = day_of(timezone.now() - 160 * DAY).date().replace(day=1)
        while month <= timezone.now().date():
            for line in billing.lines(customer, month=month):
                billed[line.unit] += line.units
            month = month_of(month)[1].date()
        assert +billed == +Counter(
            {
                "requests": len(charged),
                "rows": sum(event.rows for event in charged),
                "compute_ms": sum(
                    Decimal(event.compute_us) / 1000 for event in charged
                ),
                "shap_samples": sum(event.shap_samples for event in charged),
            }
        )


_FACTS = (
    "requests",
    "rows",
    "errors",
    "charged_requests",
    "charged_rows",
    "shap_samples",
    "charged_compute_us",
    "charged_shap_samples",
    "compute_ms",
)


def _facts(row: dict[str, object]) -> dict[str, object]:
    return {name: row[name] for name in _FACTS}


def _expected(events: list[UsageEvent]) -> dict[str, object]:
    charged = [event for event in events if event.charged]
    return {
        "requests": len(events),
        "rows": sum(event.rows for event in events),
        "errors": sum(event.status >= 400 for event in events),
        "charged_requests": len(charged),
        "charged_rows": sum(event.rows for event in charged),
        "shap_samples": sum(event.shap_samples for event in events),
        "charged_compute_us": sum(event.compute_us for event in charged),
        "charged_shap_samples": sum(event.shap_samples for event in charged),
        "compute_ms": round(sum(event.compute_us for event in events) / 1000, 3),
    }


def _per(events: list[UsageEvent], bucket: str) -> dict[tuple[object, ...], object]:
    start_of = day_of if bucket == "day" else hour_of
    groups: dict[tuple[object, ...], list[UsageEvent]] = {}
    for event in events:
        at = datetime.datetime.fromtimestamp(event.at, datetime.UTC)
        group = (start_of(at), event.model, event.version)
        groups.setdefault(group, []).append(event)
    return {group: _expected(those) for group, those in groups.items()}


def _sums(model: type[UsageSums], **conditions: object) -> dict[tuple, tuple]:
    sums: dict[tuple, list[int]] = {}
    for row in model._default_manager.filter(**conditions):
        kind = tuple(getattr(row, name) for name in UsageSums.KIND)
        _add(sums, kind, [getattr(row, name) for name in UsageSums.SUMS])
    return {kind: tuple(values) for kind, values in sums.items()}


def _sums_of(events: list[UsageEvent]) -> dict[tuple, tuple]:
    sums: dict[tuple, list[int]] = {}
    for event in events:
        facts = msgspec.structs.asdict(event)
        values = {
            "requests": 1,
            "charged_requests": int(event.charged),
            "charged_rows": event.charged * event.rows,
            "charged_compute_us": event.charged * event.compute_us,
            "charged_shap_samples": event.charged * event.shap_samples,
        }
        _add(
            sums,
            tuple(facts[name] for name in UsageSums.KIND),
            [values.get(name, facts.get(name)) for name in UsageSums.SUMS],
        )
    return {kind: tuple(values) for kind, values in sums.items()}


def _add(sums: dict[tuple, list[int]], kind: tuple, values: list[int]) -> None:
    known = sums.setdefault(kind, [0] * len(values))
    sums[kind] = [a + b for a, b in zip(known, values, strict=True)]
