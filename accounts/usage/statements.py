"""Close a customer's month for good, and correct it by further statements.

An open month is priced by the usage and prices that are known now. A closed month has a
number, and its lines stay: later prices and late usage do not change them. Differences
become a correction, a statement with a number of its own. Its lines take back units
(below zero) or add some, so that all statements of a month together make up its cost.
"""

import datetime
from collections import defaultdict
from collections.abc import Iterable, Iterator
from decimal import Decimal
from typing import Any

from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction
from django.db.models import Max

from accounts.admission.windows import month_of
from accounts.models import Customer, Statement
from accounts.usage import billing
from accounts.usage.billing import Line

# Usage of the last minutes may be on its way: gateways write it within a second, and
# the files of a dead gateway are read within minutes.
CLOSED_AFTER = datetime.timedelta(hours=1)
# Statements of one customer take turns; other customers may take the same number.
_TRIES = 20
_Place = tuple[datetime.date, str, str, str, str, Decimal | None]


def may_close(month: datetime.date, *, now: datetime.datetime) -> bool:
    """Return whether a month is over, and its usage is in."""
    _, ends_at = month_of(month)
    return ends_at + CLOSED_AFTER <= now


def first_month(customer: Customer) -> datetime.date:
    """Return the first day of the month in which the customer was added."""
    return customer.created_at.astimezone(datetime.UTC).date().replace(day=1)


def of_month(customer: Customer, month: datetime.date) -> list[Statement]:
    """Return the statement that closed a month, followed by its corrections."""
    return list(customer.statements.filter(month=month.replace(day=1)).order_by("pk"))


@transaction.atomic
def close(
    customer: Customer, *, month: datetime.date, by: User, now: datetime.datetime
) -> Statement:
    """Close a month: write its statement under the next number.

    Raise ValidationError if the month is not over, is closed already, or is before the
    customer was added.
    """
    month = month.replace(day=1)
    customer = _locked(customer)
    first = first_month(customer)
    if month < first:
        raise ValidationError(
            f"{month:%B %Y} has nothing to close: {customer} began in {first:%B %Y}."
        )
    closed = of_month(customer, month)
    if closed:
        raise ValidationError(
            f"{month:%B %Y} is closed already, by statement {closed[0].number}."
        )
    if not may_close(month, now=now):
        raise ValidationError(
            f"{month:%B %Y} can be closed an hour after it is over, in UTC."
        )
    return _write(
        customer,
        month,
        list(billing.lines(customer, month=month)),
        closed_at=now,
        closed_by=by,
    )


@transaction.atomic
def correct(
    closed: Statement, *, reason: str, by: User, now: datetime.datetime
) -> Statement:
    """Write what differs from a closed month and its corrections so far.

    Raise ValidationError if there is no reason, if nothing differs, or if minutes that
    priced the month are gone: the difference would be made up.
    """
    if closed.corrects is not None:
        closed = closed.corrects
    if not reason.strip():
        raise ValidationError("Write why the month is corrected.")
    customer = _locked(closed.customer)
    blurred = billing.day_priced_otherwise_by_now(customer, month=closed.month)
    if blurred is not None:
        raise ValidationError(
            f"The plan changed within an hour on {blurred}, whose usage is kept by hour"
            " only by now. What each plan was used for cannot be told apart any more,"
            " so this month stays as it is stated."
        )
    differences = list(_differences(customer, closed.month))
    if not differences:
        raise ValidationError(
            f"Nothing differs from what is stated of {closed.month:%B %Y}."
        )
    return _write(
        customer,
        closed.month,
        differences,
        corrects=closed,
        reason=reason.strip(),
        closed_at=now,
        closed_by=by,
    )


def lines(statement: Statement) -> Iterator[Line]:
    """Read the lines back exactly as they were written."""
    for day, plan, key_id, model, version, unit, units, price in statement.lines:
        yield Line(
            day=datetime.date.fromisoformat(day),
            plan=plan,
            key_id=key_id,
            model=model,
            version=version,
            unit=unit,
            units=Decimal(units),
            price=None if price is None else Decimal(price),
        )


def csv_rows(statement: Statement) -> Iterator[tuple[Any, ...]]:
    """Yield the lines as they were when the statement was written."""
    return billing.csv_rows(
        lines(statement),
        customer=statement.customer_name,
        statement=str(statement.number),
    )


def total(statements: Iterable[Statement]) -> Decimal:
    """Add up statements exactly."""
    return billing.add(Decimal(statement.total) for statement in statements)


def _differences(customer: Customer, month: datetime.date) -> Iterator[Line]:
    stated = [line for each in of_month(customer, month) for line in lines(each)]
    current = list(billing.lines(customer, month=month))
    units: dict[_Place, Decimal] = defaultdict(Decimal)
    plans: dict[_Place, str] = {}
    for found, sign in ((stated, -1), (current, 1)):
        for line in found:
            place = _place(line)
            units[place] = billing.add((units[place], line.units * sign))
            plans[place] = line.plan
    for place in sorted(units, key=lambda place: (place[:5], place[5] or Decimal())):
        if units[place]:
            day, key_id, model, version, unit, price = place
            yield Line(
                day=day,
                plan=plans[place],
                key_id=key_id,
                model=model,
                version=version,
                unit=unit,
                units=units[place],
                price=price,
            )


def _place(line: Line) -> _Place:
    """Return the key of lines that count the same units at the same price."""
    return (line.day, line.key_id, line.model, line.version, line.unit, line.price)


def _locked(customer: Customer) -> Customer:
    return (
        Customer.objects.select_for_update(of=("self",))
        .select_related("plan")
        .get(pk=customer.pk)
    )


def _write(
    customer: Customer, month: datetime.date, found: list[Line], **facts: Any
) -> Statement:
    statement = Statement(
        customer=customer,
        customer_name=customer.name,
        month=month,
        lines=[
            (
                line.day.isoformat(),
                line.plan,
                line.key_id,
                line.model,
                line.version,
                line.unit,
                billing.plain(line.units),
                None if line.price is None else billing.plain(line.price),
            )
            for line in found
        ],
        total=billing.plain(billing.total(found)),
        **facts,
    )
    for _ in range(_TRIES):
        newest = Statement.objects.aggregate(newest=Max("number"))["newest"] or 0
        statement.number = newest + 1
        try:
            with transaction.atomic():
                statement.save()
        except IntegrityError:
            # Another customer's statement has that number.
            continue
        return statement
    raise ValidationError("Many months are being closed right now. Try again.")
