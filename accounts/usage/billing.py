"""Price a customer's usage: lines for invoices, exact to the last digit.

Only charged usage is priced: refusals, failures on our side and keys in test mode cost
nothing. Each minute is priced by the plan that the customer had when it began, and by
the newest price of its day; a price of one model goes before the price of all. When
minutes are gone, an hour counts as the minute in which it began. `statements.py` keeps
exported lines as they were.
"""

import datetime
import decimal
import functools
import itertools
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from accounts.admission.windows import month_of
from accounts.models import Customer, Price
from accounts.usage import export, reading, roll_ups
from accounts.usage import spans as usage_spans
from accounts.usage.grains import Grain

_DAY = datetime.timedelta(days=1)
_MINUTE = datetime.timedelta(minutes=1)
# More digits than units and prices have together, so only quotients are rounded.
_EXACT = decimal.Context(prec=80)
_PER_REQUEST = Decimal("1e-9")
CSV_COLUMNS = (
    "day",
    "customer",
    "plan",
    "key_id",
    "model",
    "version",
    "unit",
    "units",
    "price",
    "cost",
    # Number of the statement with this line; empty while the month is open.
    "statement",
)


@dataclass(frozen=True, slots=True)
class Line:
    """The use of one unit on one day, by one key, on one version."""

    day: datetime.date
    plan: str
    key_id: str
    model: str
    version: str
    unit: str
    units: Decimal
    # None: the unit is free on this plan.
    price: Decimal | None

    @property
    def cost(self) -> Decimal:
        return _cost(self.units, self.price)


@dataclass(frozen=True, slots=True)
class VersionCost:
    """What the calls of one version cost, together and per call."""

    model: str
    version: str
    requests: int
    cost: Decimal

    @property
    def cost_per_request(self) -> Decimal | None:
        return per_request(self.cost, self.requests)


# Years that may be asked for; at the ends of the calendar a day has no next day.
YEARS = range(2000, 3000)


def lines(customer: Customer, *, month: datetime.date) -> Iterator[Line]:
    """Price a customer's month as it is known now, day by day and plan by plan."""
    starts_at, ends_at = month_of(month)
    pricing = Pricing(customer, starts_at, ends_at)
    for span in pricing.spans:
        used = usage_spans.between(
            span.starts_at, span.ends_at, customer_id=customer.pk
        )
        for row in reading.over_time(used, "day", "key_id", "model", "version"):
            yield from pricing.lines(row, span)


def lines_by_version(customer: Customer, *, month: datetime.date) -> list[Line]:
    """Price a month in few lines of the same total: by version, plan and price.

    The day of a line is the first day of its price. If the customer's plans have no
    prices, there are no lines.
    """
    starts_at, ends_at = month_of(month)
    pricing = Pricing(customer, starts_at, ends_at)
    if pricing.is_free:
        return []
    found: list[Line] = []
    for span in pricing.spans:
        used = usage_spans.between(
            span.starts_at, span.ends_at, customer_id=customer.pk
        )
        starts = pricing.starts(span)
        for row in reading.charged_by_period(used, starts, "model", "version"):
            found.extend(pricing.lines({"key_id": "", **row}, span))
    return found


def day_priced_otherwise_by_now(
    customer: Customer, *, month: datetime.date
) -> datetime.date | None:
    """Return a day whose plan changed within an hour that has no minutes any more.

    Such an hour is priced by one plan now; with its minutes it was priced by both.
    """
    kept_from = roll_ups.kept_from()
    for span in Pricing(customer, *month_of(month)).spans[1:]:
        if span.starts_at < kept_from and span.starts_at.minute:
            return span.starts_at.date()
    return None


def total(billed: Iterable[Line]) -> Decimal:
    return add(line.cost for line in billed)


def per_request(cost: Decimal, requests: int) -> Decimal | None:
    """Divide a cost by the charged requests, to nine decimals."""
    if not requests:
        return None
    return _EXACT.quantize(_EXACT.divide(cost, Decimal(requests)), _PER_REQUEST)


def by_version(billed: Iterable[Line]) -> list[VersionCost]:
    """Add up what each version costs, the most costly first."""
    costs: dict[tuple[str, str], tuple[int, Decimal]] = {}
    for line in billed:
        key = (line.model, line.version)
        requests, cost = costs.get(key, (0, Decimal()))
        if line.unit == "requests":
            requests += int(line.units)
        costs[key] = (requests, _EXACT.add(cost, line.cost))
    found = [
        VersionCost(model=model, version=version, requests=requests, cost=cost)
        for (model, version), (requests, cost) in costs.items()
    ]
    return sorted(found, key=lambda each: (-each.cost, each.model, each.version))


def over_time(
    customer: Customer,
    starts_at: datetime.datetime,
    ends_at: datetime.datetime,
    bucket: Grain,
    *fields: str,
) -> list[dict[str, Any]]:
    """Return a customer's usage and its cost per bucket and value of `fields`."""
    own = usage_spans.between(starts_at, ends_at, customer_id=customer.pk, grain=bucket)
    pricing = Pricing(customer, starts_at, ends_at)
    rows = reading.over_time(own, bucket, *fields)
    by_model = pricing.by_model and "model" not in fields
    costs: dict[tuple[Any, ...], Decimal] = defaultdict(Decimal)
    for span in pricing.spans:
        priced = rows
        if by_model or len(pricing.spans) > 1:
            part = usage_spans.between(
                span.starts_at, span.ends_at, customer_id=customer.pk, grain=bucket
            )
            further = ("model",) if by_model else ()
            priced = reading.over_time(part, bucket, *fields, *further)
        for row in priced:
            group = (row["start"], *(row[field] for field in fields))
            costs[group] = _EXACT.add(costs[group], pricing.cost(row, span))
    for row in rows:
        cost = costs[row["start"], *(row[field] for field in fields)]
        row["cost"] = cost
        row["cost_per_request"] = per_request(cost, row["charged_requests"])
    return rows


def csv_rows(
    billed: Iterable[Line], *, customer: str, statement: str = ""
) -> Iterator[tuple[Any, ...]]:
    """Yield CSV_COLUMNS, then one row per line; they add up to the invoice."""
    yield CSV_COLUMNS
    for line in billed:
        yield (
            line.day.isoformat(),
            export.plain_text(customer),
            export.plain_text(line.plan),
            line.key_id,
            export.plain_text(line.model),
            line.version,
            line.unit,
            plain(line.units),
            "" if line.price is None else plain(line.price),
            plain(line.cost),
            statement,
        )


@dataclass(frozen=True, slots=True)
class PlanSpan:
    """A time, in whole minutes, in which a customer had one plan."""

    starts_at: datetime.datetime
    ends_at: datetime.datetime
    plan_id: int
    plan: str


class Pricing:
    """The prices of a customer's units, by the plan of their minute and their day."""

    def __init__(
        self,
        customer: Customer,
        starts_at: datetime.datetime,
        ends_at: datetime.datetime,
    ) -> None:
        self.spans = _plan_spans(customer, starts_at, ends_at)
        prices = Price.objects.filter(
            plan_id__in={span.plan_id for span in self.spans},
            valid_from__lt=ends_at.date() + _DAY,
        )
        # By plan, unit and model; the newest price first.
        self._prices: dict[tuple[int, str, str], list[Price]] = {}
        for price in prices.order_by("-valid_from"):
            key = (price.plan_id, price.unit, price.model)
            self._prices.setdefault(key, []).append(price)
        self.by_model = any(model for _, _, model in self._prices)

    @property
    def is_free(self) -> bool:
        return not self._prices

    def starts(self, span: PlanSpan) -> list[datetime.datetime]:
        """Return the start of a span, and the times within it when a price changes."""
        changes = {
            datetime.datetime.combine(
                price.valid_from, datetime.time(), tzinfo=datetime.UTC
            )
            for (plan_id, _, _), prices in self._prices.items()
            if plan_id == span.plan_id
            for price in prices
        }
        within = {at for at in changes if span.starts_at < at < span.ends_at}
        return [span.starts_at, *sorted(within)]

    def lines(self, row: dict[str, Any], span: PlanSpan) -> Iterator[Line]:
        """Price a row of `reading.over_time` for one key, model and version."""
        day = row["start"].date()
        for unit, units in _units(row):
            if units:
                yield Line(
                    day=day,
                    plan=span.plan,
                    key_id=row["key_id"],
                    model=row["model"],
                    version=row["version"],
                    unit=unit,
                    units=units,
                    price=self._price(day, span.plan_id, unit, row["model"]),
                )

    def cost(self, row: dict[str, Any], span: PlanSpan) -> Decimal:
        """Price a row of `reading.over_time`; `by_model` prices need a single model."""
        day = row["start"].date()
        return add(
            _cost(units, self._price(day, span.plan_id, unit, row.get("model", "")))
            for unit, units in _units(row)
        )

    def _price(
        self, day: datetime.date, plan_id: int, unit: str, model: str
    ) -> Decimal | None:
        for name in (model, ""):
            for price in self._prices.get((plan_id, unit, name), ()):
                if price.valid_from <= day:
                    return price.amount
        return None


def _plan_spans(
    customer: Customer, starts_at: datetime.datetime, ends_at: datetime.datetime
) -> list[PlanSpan]:
    """Read from the history which plan the customer had in which minutes."""
    changes = list(
        customer.history.filter(history_date__lt=ends_at)
        .order_by("history_date", "history_id")
        .values_list("history_date", "plan_id", "plan__name")
    )
    plan = (customer.plan_id, customer.plan.name)
    if changes:
        # Before the first recorded change, the plan of that record counts.
        plan = (changes[0][1], changes[0][2])
    # Of several changes within a minute, the last one counts.
    plan_from = {starts_at: plan}
    for changed_at, plan_id, name in changes:
        plan_from[max(_next_minute(changed_at), starts_at)] = (plan_id, name)
    starts = [start for start in sorted(plan_from) if start < ends_at]
    spans: list[PlanSpan] = []
    for start, end in itertools.pairwise([*starts, ends_at]):
        if spans and (spans[-1].plan_id, spans[-1].plan) == plan_from[start]:
            # Most changes of a customer do not change its plan.
            start = spans.pop().starts_at
        spans.append(PlanSpan(start, end, *plan_from[start]))
    return spans


def _next_minute(at: datetime.datetime) -> datetime.datetime:
    """Round up: the minute in which a plan changes belongs to the old plan."""
    whole = at.replace(second=0, microsecond=0)
    return whole if whole == at else whole + _MINUTE


def _units(row: dict[str, Any]) -> tuple[tuple[str, Decimal], ...]:
    return (
        ("requests", Decimal(row["charged_requests"])),
        ("rows", Decimal(row["charged_rows"])),
        ("compute_ms", Decimal(row["charged_compute_us"]).scaleb(-3, _EXACT)),
        ("shap_samples", Decimal(row["charged_shap_samples"])),
    )


def _cost(units: Decimal, price: Decimal | None) -> Decimal:
    return Decimal() if price is None else _EXACT.multiply(units, price)


def add(costs: Iterable[Decimal]) -> Decimal:
    """Add up numbers without rounding."""
    return functools.reduce(_EXACT.add, costs, Decimal())


def plain(number: Decimal) -> str:
    """Write a number without an exponent and without trailing zeros."""
    text = f"{number:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
