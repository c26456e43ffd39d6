import datetime
import io

import pytest
from django.core.checks import run_checks
from django.core.management import CommandError, call_command
from django.urls import reverse
from django.utils import timezone

from accounts import tasks
from accounts.models import (
    Lease,
    QuotaCounter,
    UnrolledHour,
    Usage,
    UsageDay,
    UsageHour,
)
from accounts.quotas import leases
from accounts.usage import reading, recording, retention, roll_ups, spans
from accounts.usage.grains import DAY, HOUR, day_of, hour_of
from tests.accounts.quotas.test_leases import event
from tests.factories import CustomerFactory

pytestmark = pytest.mark.django_db

KEEP = 40 * DAY


@pytest.fixture
def now():
    return timezone.now()


@pytest.fixture
def customer():
    return CustomerFactory()


def record(name, *events):
    assert recording.record(f"{name}.spool", events, 1)


def everything(now):
    return reading.totals(spans.between(now - 400 * DAY, now + DAY))


def test_old_minutes_go_and_hours_days_and_sums_stay(customer, now):
    days = (0, 39, 41, 42, 100)
    record("a", *(event(customer, 2 + ago, at=now - ago * DAY) for ago in days))
    roll_ups.roll_up(now=now + HOUR)
    before = everything(now)

    retention.forget_minutes(now=now, keep=KEEP)

    assert everything(now) == before
    assert roll_ups.kept_from() == day_of(now - KEEP)
    # Minutes of the last closed day stay for readers that have begun.
    assert set(Usage.objects.values_list("rows", flat=True)) == {2, 41, 43}
    assert {row.rows for row in UsageHour.objects.all()} == {2, 41, 43, 44, 102}
    assert {row.rows for row in UsageDay.objects.all()} == {2, 41, 43, 44, 102}


def test_minutes_that_wait_to_be_rolled_up_are_kept(customer, now):
    record("a", event(customer, 2, at=now - 50 * DAY))

    retention.forget_minutes(now=now, keep=KEEP)

    assert Usage.objects.count() == 1
    assert roll_ups.kept_from() <= now - 50 * DAY


def test_minutes_whose_hours_say_something_else_are_kept_and_added_up_again(
    customer, now
):
    # Not in the first hour of its day: both are marked.
    record("a", event(customer, 2, at=(now - 50 * DAY).replace(hour=12)))
    roll_ups.roll_up(now=now)
    UsageHour.objects.update(rows=1)

    retention.forget_minutes(now=now, keep=KEEP)
    assert Usage.objects.count() == 1
    assert UnrolledHour.objects.count() == 2

    roll_ups.roll_up(now=now)
    retention.forget_minutes(now=now, keep=KEEP)
    assert not Usage.objects.exists()
    assert everything(now)["rows"] == 2


def test_a_day_that_another_round_closed_meanwhile_is_not_added_up_again(
    customer, now, monkeypatch
):
    at = now - 50 * DAY
    record("a", event(customer, 2, at=at))
    roll_ups.roll_up(now=now)
    compare = retention.differing_hours
    seen = []

    def compare_too_late(day):
        """Find an earlier difference, while another process closes the day."""
        if not seen:
            seen.append(day)
            retention.forget_minutes(now=now, keep=KEEP)
            record("late", event(customer, 3, at=at))
            return {(customer.pk, day)}
        return compare(day)

    monkeypatch.setattr(retention, "differing_hours", compare_too_late)

    retention.forget_minutes(now=now, keep=KEEP)
    roll_ups.roll_up(now=now)

    assert seen
    assert not UnrolledHour.objects.exists()
    assert everything(now)["rows"] == 5


def test_a_clock_that_was_ahead_once_costs_no_usage_after_it(
    customer, now, monkeypatch
):
    record("a", event(customer, 2, at=now - DAY))
    ahead = now + 500 * DAY
    with monkeypatch.context() as clock:
        clock.setattr(timezone, "now", lambda: ahead)
        roll_ups.roll_up(now=ahead)
        retention.forget_minutes(now=ahead, keep=KEEP)

    record("b", event(customer, 3, at=now - HOUR))
    seen = everything(now)["rows"]
    retention.forget_minutes(now=now, keep=KEEP)
    roll_ups.roll_up(now=now + HOUR)

    assert seen == everything(now)["rows"] == 5


def test_a_mark_left_in_a_closed_day_takes_nothing_from_its_hours(customer, now):
    at = now - 50 * DAY
    record("a", event(customer, 2, at=at))
    roll_ups.roll_up(now=now)
    retention.forget_minutes(now=now, keep=KEEP)
    record("late", event(customer, 3, at=at))

    roll_ups.mark([(customer.pk, hour_of(at))])
    roll_ups.roll_up(now=now)

    assert not UnrolledHour.objects.exists()
    assert everything(now)["rows"] == 5


def test_what_comes_after_its_minutes_are_gone_is_added_once(customer, now):
    old = now - 50 * DAY
    record("a", event(customer, 2, at=old), event(customer, 1, at=now))
    roll_ups.roll_up(now=now)
    retention.forget_minutes(now=now, keep=KEEP)

    late = [event(customer, 3, at=old), event(customer, 4, at=now)]
    record("b", *late)
    assert recording.record("b.spool", late, 1) is False
    roll_ups.roll_up(now=now + DAY)

    assert everything(now)["rows"] == 10
    assert not Usage.objects.filter(minute__lt=now - DAY).exists()
    oldest = UsageDay.objects.order_by("start").first()
    assert (oldest.requests, oldest.rows) == (2, 5)
    assert oldest.latency_buckets == {"1": 2}


def test_a_month_s_minutes_are_kept_whatever_is_asked(customer, now):
    record("a", event(customer, 2, at=now - 34 * DAY))
    roll_ups.roll_up(now=now)

    retention.forget_minutes(now=now, keep=DAY)

    assert Usage.objects.count() == 1


def test_a_round_stops_when_its_time_is_over(customer, now):
    record("a", event(customer, 2, at=now - 50 * DAY))
    roll_ups.roll_up(now=now)

    stopped = retention.forget_minutes(now=now, keep=KEEP, budget_s=-1)

    assert (stopped.done, stopped.caught_up) == (0, False)
    assert retention.forget_minutes(now=now, keep=KEEP).done == 1


def test_the_worker_rolls_up_and_forgets(customer, now, settings):
    settings.USAGE_MINUTES_DAYS = 45
    record("a", *(event(customer, 2, at=now - ago * DAY) for ago in (1, 44, 50)))

    tasks.roll_up_usage()
    tasks.forget_usage_minutes()

    assert not UnrolledHour.objects.filter(hour__lt=now - 2 * HOUR).exists()
    assert Usage.objects.count() == 2
    assert everything(now)["rows"] == 6


def test_a_retention_shorter_than_a_month_is_refused_at_the_start(settings):
    settings.USAGE_MINUTES_DAYS = 34
    assert "accounts.E001" in [message.id for message in run_checks()]

    settings.USAGE_MINUTES_DAYS = 35
    assert "accounts.E001" not in [message.id for message in run_checks()]


# The command


def command(*arguments):
    out = io.StringIO()
    call_command("roll_up_usage", *arguments, stdout=out)
    return out.getvalue()


def test_the_command_adds_up_what_waits(customer, now):
    record("a", event(customer, 2, at=now - 2 * DAY))

    assert command() == "Rolled up: 1 hours of customers.\n"
    assert UsageDay.objects.get().rows == 2


def test_the_command_makes_days_anew_from_their_minutes(customer, now):
    other = CustomerFactory()
    at = now - 2 * DAY
    record("a", event(customer, 2, at=at), event(other, 3, at=at))
    roll_ups.roll_up(now=now)
    UsageHour.objects.update(rows=99)
    UsageDay.objects.all().delete()
    days = (f"--from={at.date()}", f"--to={at.date()}")

    with pytest.raises(CommandError, match="differ"):
        command("--check", *days)
    command(*days, f"--customer={customer.pk}")
    assert UsageHour.objects.get(customer=customer).rows == 2
    assert UsageHour.objects.get(customer=other).rows == 99
    command(*days)

    assert "same sums" in command("--check", *days)
    assert sorted(UsageDay.objects.values_list("rows", flat=True)) == [2, 3]


def test_the_command_leaves_what_has_no_minutes_any_more(customer, now):
    old = now - 50 * DAY
    record("a", event(customer, 2, at=old))
    roll_ups.roll_up(now=now)
    retention.forget_minutes(now=now, keep=KEEP)

    command(f"--from={old.date()}", f"--to={now.date()}")

    assert UsageHour.objects.get().rows == 2
    assert everything(now)["rows"] == 2


@pytest.mark.parametrize(
    "arguments",
    [["--check"], ["--from=2026-11-02"], ["--from=2026-11-02", "--to=2026-11-01"]],
)
def test_the_command_says_which_days_it_needs(arguments):
    with pytest.raises(CommandError, match="--from"):
        command(*arguments)


def test_a_date_that_is_none_is_refused():
    with pytest.raises((CommandError, ValueError)):
        command("--from=soon", "--to=later")


def test_a_span_that_ends_where_only_hours_are_kept_has_whole_hours(customer, now):
    old = (now - 50 * DAY).replace(minute=30)
    record("a", event(customer, 2, at=old))
    roll_ups.roll_up(now=now)
    retention.forget_minutes(now=now, keep=KEEP)

    starts = old.replace(minute=0, second=0, microsecond=0)
    hour = spans.between(starts, starts + datetime.timedelta(minutes=10))
    rest = spans.between(starts + datetime.timedelta(minutes=10), starts + HOUR)

    assert reading.totals(hour)["rows"] == 2
    assert reading.totals(rest)["rows"] == 0


def test_a_customer_with_hours_only_cannot_be_deleted(admin_client, customer, now):
    page = reverse("admin:accounts_customer_delete", args=(customer.pk,))
    assert admin_client.get(page).status_code == 200
    record("a", event(customer, 2, at=now - 50 * DAY))
    roll_ups.roll_up(now=now)
    retention.forget_minutes(now=now, keep=KEEP)

    assert not Usage.objects.exists()
    assert admin_client.get(page).status_code == 403


def test_a_lease_of_a_window_without_minutes_gives_nothing_back(customer, now):
    month = day_of(now - 60 * DAY).replace(day=1).date()
    counter = QuotaCounter.objects.create(
        customer=customer, name="month", unit="rows", window_start=month, granted=10
    )
    Lease.objects.create(counter=counter, holder="boot", granted=10)
    retention.forget_minutes(now=now, keep=35 * DAY)

    assert leases.settle("boot") == 0

    counter.refresh_from_db()
    assert counter.granted == 10
    assert Lease.objects.get().settled_at is not None
