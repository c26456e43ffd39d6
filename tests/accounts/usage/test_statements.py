import datetime
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from unittest import mock

import pytest
from django.core.exceptions import ValidationError
from django.db import connection
from django.utils import timezone

from accounts.admission.windows import month_of
from accounts.models import Customer, Statement, UsageKeeping
from accounts.usage import billing, roll_ups, statements
from tests.accounts.usage.test_billing import price, use
from tests.factories import ApiKeyFactory, CustomerFactory, PlanFactory, UserFactory

pytestmark = pytest.mark.django_db

LONG_AGO = datetime.date(2020, 1, 1)


@pytest.fixture
def key():
    key = ApiKeyFactory(customer__name="Acme", customer__plan__name="Pro")
    long_ago = timezone.now() - datetime.timedelta(days=400)
    key.customer.history.update(history_date=long_ago)
    Customer.objects.update(created_at=long_ago)
    key.customer.refresh_from_db()
    return key


@pytest.fixture
def month():
    """The newest month that may be closed: one that is over for an hour."""
    this = (timezone.now() - datetime.timedelta(hours=2)).date().replace(day=1)
    return (this - datetime.timedelta(days=1)).replace(day=1)


def noon(month, day=10):
    return datetime.datetime.combine(
        month.replace(day=day), datetime.time(12), tzinfo=datetime.UTC
    )


def close(key, month):
    by = UserFactory()
    return statements.close(key.customer, month=month, by=by, now=timezone.now())


def correct(closed, reason="late usage"):
    by = UserFactory()
    return statements.correct(closed, reason=reason, by=by, now=timezone.now())


def costs(statement):
    return [
        (line.day.day, line.model, line.unit, str(line.units), str(line.cost))
        for line in statements.lines(statement)
        if line.price is not None
    ]


def test_a_closed_month_stays_as_it_is_and_is_corrected_by_an_entry_of_its_own(
    key, month
):
    price(key.customer.plan, "rows", "0.01", since=LONG_AGO)
    use(key, rows=291, at=noon(month))
    closed = close(key, month)
    rows = list(statements.csv_rows(closed))

    price(key.customer.plan, "rows", "1.5", since=month.replace(day=2))
    use(key, rows=2, model="digits", at=noon(month, 11))
    key.customer.name = "Acme Corporation"
    key.customer.save()

    closed = Statement.objects.get()
    assert list(statements.csv_rows(closed)) == rows
    assert (closed.number, closed.total, closed.customer_name) == (1, "2.91", "Acme")
    assert rows[-1][-3:] == ("0.01", "2.91", "1")

    correction = correct(closed, "a price was wrong")

    assert (correction.number, correction.corrects) == (2, closed)
    assert costs(correction) == [
        (10, "cancer", "rows", "-291", "-2.91"),
        (10, "cancer", "rows", "291", "436.5"),
        (11, "digits", "rows", "2", "3.0"),
    ]
    lines = billing.lines(key.customer, month=month)
    both = statements.of_month(key.customer, month)
    assert statements.total(both) == billing.total(lines) == Decimal("439.5")
    with pytest.raises(ValidationError, match="Nothing differs"):
        correct(closed)
    use(key, rows=1, at=noon(month))
    assert correct(correction).corrects == closed


def test_a_month_is_closed_once_and_when_it_is_over(key, month):
    close(key, month)
    now = timezone.now()

    with pytest.raises(ValidationError, match="closed already, by statement 1"):
        close(key, month)
    with pytest.raises(ValidationError, match="an hour after it is over"):
        close(key, now.date())
    _, over = month_of(month)
    assert not statements.may_close(month, now=over + datetime.timedelta(minutes=59))
    assert statements.may_close(month, now=over + datetime.timedelta(hours=1))
    with pytest.raises(ValidationError, match="Write why"):
        correct(Statement.objects.get(), " ")


def test_no_month_before_the_customer_is_closed(key, month):
    Customer.objects.update(created_at=noon(month))
    before = month - datetime.timedelta(days=1)

    with pytest.raises(ValidationError, match="has nothing to close"):
        close(key, before)

    assert not Statement.objects.exists()
    assert close(key, month).number == 1


def test_a_month_is_not_corrected_by_minutes_that_are_gone(key, month):
    """An hour with two plans is priced by one of them once it has no minutes."""
    free = key.customer.plan
    paid = PlanFactory(name="Paid")
    price(paid, "rows", "1", since=LONG_AGO)
    use(key, rows=4, at=noon(month))
    use(key, rows=6, at=noon(month) + datetime.timedelta(minutes=40))
    key.customer.plan = paid
    key.customer.save()
    key.customer.history.filter(plan=paid).update(
        history_date=noon(month) + datetime.timedelta(minutes=30)
    )
    closed = close(key, month)
    assert closed.total == "6"
    assert free != paid

    roll_ups.roll_up(now=timezone.now())
    UsageKeeping.objects.update_or_create(
        pk=1, defaults={"minutes_from": noon(month, 12).replace(hour=0)}
    )
    with (
        mock.patch.object(roll_ups, "LEAST_KEPT", datetime.timedelta()),
        pytest.raises(ValidationError, match="kept by hour only"),
    ):
        correct(closed)

    assert statements.total(statements.of_month(key.customer, month)) == 6


def test_a_statement_is_not_changed(key, month):
    closed = close(key, month)
    closed.total = "0"

    with pytest.raises(TypeError, match="stays as it is"):
        closed.save()


def test_units_and_prices_come_back_exactly(key, month):
    price(key.customer.plan, "compute_ms", "0.000000001", since=LONG_AGO)
    use(key, compute_us=1, at=noon(month))
    use(key, compute_us=2**62, model="large", at=noon(month))
    before = list(billing.lines(key.customer, month=month))

    closed = Statement.objects.get(pk=close(key, month).pk)

    assert list(statements.lines(closed)) == before
    assert Decimal(closed.total) == billing.total(before)


@pytest.mark.django_db(transaction=True)
@pytest.mark.xdist_group("many connections")
def test_months_closed_at_once_have_consecutive_numbers(month):
    customers = [CustomerFactory() for _ in range(8)]
    Customer.objects.update(created_at=noon(month))
    by = UserFactory()

    def close_one(customer):
        try:
            return statements.close(
                customer, month=month, by=by, now=timezone.now()
            ).number
        finally:
            connection.close()

    with ThreadPoolExecutor(8) as pool:
        numbers = list(pool.map(close_one, customers))

    assert sorted(numbers) == list(range(1, 9))
