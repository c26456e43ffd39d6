import datetime
from decimal import Decimal

import pytest

from accounts.admission.windows import month_of
from accounts.metering.event import UsageEvent
from accounts.models import Price
from accounts.usage import billing, recording
from tests.factories import ApiKeyFactory, PlanFactory

pytestmark = pytest.mark.django_db

NOVEMBER = datetime.date(2026, 11, 1)
TENTH = datetime.datetime(2026, 11, 10, 12, tzinfo=datetime.UTC)


@pytest.fixture
def key():
    key = ApiKeyFactory(customer__name="Acme", customer__plan__name="Pro")
    # The customer was there before the month began.
    key.customer.history.update(history_date=TENTH - datetime.timedelta(days=90))
    return key


def price(plan, unit, amount, *, model="", since=datetime.date(2026, 1, 1)):
    return Price.objects.create(
        plan=plan, unit=unit, amount=Decimal(amount), model=model, valid_from=since
    )


def use(key, *, rows=1, at=TENTH, **changes):
    event = {
        "id": "e",
        "at": at.timestamp(),
        "customer_id": key.customer_id,
        "key_id": key.key_id,
        "operation": "predict",
        "model": "cancer",
        "version": "1",
        "variant": "default",
        "status": 200,
        "code": "",
        "rows": rows,
        "charged": True,
        "compute_us": 0,
        "total_us": 10_000,
        "shap_samples": 0,
        "request_id": "r",
    } | changes
    use.count += 1
    recording.record(f"s{use.count}", [UsageEvent(**event)], 1)


use.count = 0


def bill(key):
    return {
        (line.day.day, line.unit): (line.units, line.price, line.cost)
        for line in billing.lines(key.customer, month=NOVEMBER)
    }


def test_each_unit_is_priced_and_what_has_no_price_is_free(key):
    price(key.customer.plan, "rows", "0.002")
    price(key.customer.plan, "compute_ms", "0.000000001")
    use(key, rows=3, compute_us=1500)
    use(key, rows=4)

    assert bill(key) == {
        (10, "requests"): (2, None, 0),
        (10, "rows"): (7, Decimal("0.002"), Decimal("0.014")),
        (10, "compute_ms"): (
            Decimal("1.5"),
            Decimal("0.000000001"),
            Decimal("0.0000000015"),
        ),
    }


def test_what_is_not_charged_costs_nothing(key):
    price(key.customer.plan, "rows", "1")
    use(key, charged=False)
    use(key, charged=False, status=503, code="OVERLOADED", compute_us=900)

    assert bill(key) == {}


def test_a_models_own_price_goes_before_that_of_all(key):
    price(key.customer.plan, "rows", "1")
    price(key.customer.plan, "rows", "5", model="cancer")
    use(key)
    use(key, model="digits")

    lines = list(billing.lines(key.customer, month=NOVEMBER))

    costs = {line.model: line.cost for line in lines if line.unit == "rows"}
    assert costs == {"cancer": 5, "digits": 1}


def test_a_price_holds_from_its_day_on(key):
    price(key.customer.plan, "rows", "1")
    price(key.customer.plan, "rows", "2", since=datetime.date(2026, 11, 11))
    use(key)
    use(key, at=TENTH + datetime.timedelta(days=1))

    assert bill(key)[10, "rows"][1] == 1
    assert bill(key)[11, "rows"][1] == 2


def change_plan(customer, plan, *, at):
    customer.plan = plan
    customer.save()
    newest = customer.history.latest()
    newest.history_date = at
    newest.save()


def test_each_minute_has_the_plan_that_it_began_with(key):
    price(key.customer.plan, "rows", "1")
    large = PlanFactory(name="Large")
    price(large, "rows", "0.5")
    midnight = datetime.datetime(2026, 11, 11, tzinfo=datetime.UTC)
    for seconds in (-90, -30, 0):
        use(key, at=midnight + datetime.timedelta(seconds=seconds))
    use(key, rows=5, at=midnight - datetime.timedelta(hours=20))
    # Within the last minute of the day but one.
    change_plan(key.customer, large, at=midnight - datetime.timedelta(seconds=80))

    lines = list(billing.lines(key.customer, month=NOVEMBER))

    assert [
        (line.day.day, line.plan, line.units, line.price)
        for line in lines
        if line.unit == "rows"
    ] == [
        (10, "Pro", 6, 1),
        (10, "Large", 1, Decimal("0.5")),
        (11, "Large", 1, Decimal("0.5")),
    ]
    starts_at, ends_at = month_of(NOVEMBER)
    for bucket, fields in (("day", ()), ("hour", ("model",)), ("minute", ("key_id",))):
        rows = billing.over_time(key.customer, starts_at, ends_at, bucket, *fields)
        assert billing.add(row["cost"] for row in rows) == billing.total(lines) == 7


def test_a_plan_that_is_changed_and_changed_back_within_a_minute_does_not_count(key):
    price(key.customer.plan, "rows", "1")
    before, large = key.customer.plan, PlanFactory(name="Large")
    use(key)
    for plan, seconds in ((large, 10), (before, 20)):
        change_plan(key.customer, plan, at=TENTH + datetime.timedelta(seconds=seconds))
    use(key, at=TENTH + datetime.timedelta(minutes=1))

    assert bill(key)[10, "rows"] == (2, 1, 2)


def test_a_month_is_that_of_utc(key):
    price(key.customer.plan, "rows", "1")
    first = datetime.datetime(2026, 11, 1, tzinfo=datetime.UTC)
    for at in (
        first - datetime.timedelta(seconds=1),
        first,
        datetime.datetime(2026, 11, 30, 23, 59, tzinfo=datetime.UTC),
        datetime.datetime(2026, 12, 1, tzinfo=datetime.UTC),
    ):
        use(key, at=at)

    assert {day for day, _ in bill(key)} == {1, 30}


def test_costs_per_version_and_request_add_up(key):
    price(key.customer.plan, "rows", "0.1")
    for _ in range(3):
        use(key, rows=2)
    use(key, rows=1, version="2")

    lines = list(billing.lines(key.customer, month=NOVEMBER))
    first, second = billing.by_version(lines)

    assert (first.version, first.requests, first.cost) == ("1", 3, Decimal("0.6"))
    assert first.cost_per_request == Decimal("0.2")
    assert second.cost == Decimal("0.1")
    assert billing.total(lines) == Decimal("0.7")


def test_the_csv_has_a_line_per_unit_and_no_formulas(key):
    key.customer.name = "=Acme"
    key.customer.save()
    key.customer.history.update(history_date=TENTH - datetime.timedelta(days=90))
    price(key.customer.plan, "rows", "0.0000001")
    use(key, rows=30)

    lines = billing.lines(key.customer, month=NOVEMBER)
    rows = list(billing.csv_rows(lines, customer=key.customer.name, statement="7"))

    same = ("2026-11-10", "'=Acme", "Pro", key.key_id, "cancer", "1")
    assert rows == [
        billing.CSV_COLUMNS,
        (*same, "requests", "1", "", "0", "7"),
        (*same, "rows", "30", "0.0000001", "0.000003", "7"),
    ]


def test_another_customers_usage_is_on_another_bill(key):
    use(ApiKeyFactory())

    assert bill(key) == {}


def test_a_refunded_call_is_taken_in_once_and_costs_nothing(key):
    price(key.customer.plan, "requests", "1")
    failed = {"status": 503, "code": "MODEL_UNAVAILABLE", "charged": False}
    use(key)
    use(key, **failed)

    assert bill(key) == {(10, "requests"): (1, 1, 1), (10, "rows"): (1, None, 0)}


def test_lines_by_version_are_few_and_of_the_same_total(key):
    plan, other = key.customer.plan, PlanFactory(name="Large")
    price(plan, "rows", "0.0000000001")
    price(plan, "rows", "0.3", model="cancer", since=datetime.date(2026, 11, 12))
    price(plan, "requests", "0.7", since=datetime.date(2026, 11, 20))
    price(other, "rows", "11", since=datetime.date(2026, 11, 20))
    for day in range(1, 29):
        at = TENTH.replace(day=day)
        use(key, rows=day, at=at)
        use(key, rows=3 * day, at=at, model="digits", version="2")
    # At noon of a day in which it has used something.
    key.customer.plan = other
    key.customer.save()
    key.customer.history.filter(plan=other).update(history_date=TENTH.replace(day=22))

    by_day = list(billing.lines(key.customer, month=NOVEMBER))
    by_version = billing.lines_by_version(key.customer, month=NOVEMBER)

    assert billing.total(by_version) == billing.total(by_day) > 0
    assert billing.by_version(by_version) == billing.by_version(by_day)
    # Three prices of the first plan and one of the other, for two units and models.
    assert len(by_version) == 4 * 2 * 2 < len(by_day)


def test_a_month_without_prices_is_not_added_up(key, django_assert_num_queries):
    use(key)

    # Its plans and their prices.
    with django_assert_num_queries(2):
        assert billing.lines_by_version(key.customer, month=NOVEMBER) == []
