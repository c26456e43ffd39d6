import datetime

import pytest

from accounts.metering.event import UsageEvent
from accounts.models import LimitEvent
from accounts.quotas import soft_limits
from accounts.usage import recording
from tests.factories import ApiKeyFactory

pytestmark = pytest.mark.django_db

NOW = datetime.datetime(2026, 11, 21, 12, 0, tzinfo=datetime.UTC)


def key(**plan):
    limits = {f"customer__plan__{name}": value for name, value in plan.items()}
    return ApiKeyFactory(
        **{"customer__plan__daily_quota": 100, **limits},
        customer__contact_email="ops@example.com",
    )


def use(key, rows, *, at=NOW, charged=True):
    segment = f"s{UsedSegments.next()}"
    event = UsageEvent(
        id=segment,
        at=at.timestamp(),
        customer_id=key.customer_id,
        key_id=key.key_id,
        operation="predict",
        model="m",
        version="1",
        variant="default",
        status=200,
        code="",
        rows=rows,
        charged=charged,
        compute_us=0,
        total_us=1,
        shap_samples=0,
        request_id="r",
    )
    recording.record(segment, [event], 1)


class UsedSegments:
    count = 0

    @classmethod
    def next(cls):
        cls.count += 1
        return cls.count


def thresholds(events):
    return [event.threshold_percent for event in events]


@pytest.mark.parametrize(
    ("rows", "crossed"), [(79, []), (80, [80]), (99, [80]), (100, [80, 100])]
)
def test_an_event_is_stored_at_80_and_at_100_percent(rows, crossed):
    use(key(), rows)

    assert thresholds(soft_limits.look(now=NOW)) == crossed


def test_an_event_is_stored_and_sent_once_per_window(mailoutbox):
    own = key()
    use(own, 85)

    for _ in range(3):
        soft_limits.look(now=NOW)
        soft_limits.notify(now=NOW)

    assert LimitEvent.objects.count() == 1
    [mail] = mailoutbox
    assert mail.to == ["ops@example.com"]
    assert mail.subject == "Your daily quota is running low"
    assert "85 of 100 rows" in mail.body
    tomorrow = NOW + datetime.timedelta(days=1)
    use(own, 90, at=tomorrow)
    assert thresholds(soft_limits.look(now=tomorrow)) == [80]


def test_two_thresholds_at_once_make_one_mail(mailoutbox):
    use(key(), 120)

    soft_limits.look(now=NOW)

    assert soft_limits.notify(now=NOW) == 1
    assert [mail.subject for mail in mailoutbox] == ["Your daily quota is used up"]


def test_nobody_is_written_to_without_an_address(mailoutbox):
    own = key()
    own.customer.contact_email = ""
    own.customer.save()
    use(own, 100)

    soft_limits.look(now=NOW)

    assert soft_limits.notify(now=NOW) == 0
    assert mailoutbox == []


def test_a_mail_server_that_is_away_stops_nothing(settings):
    settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
    settings.EMAIL_HOST, settings.EMAIL_PORT = "127.0.0.1", 1
    use(key(), 100)

    soft_limits.look(now=NOW)

    assert soft_limits.notify(now=NOW) == 0
    assert len(soft_limits.current(LimitEvent.objects.first().customer, now=NOW)) == 1


def test_what_is_not_charged_warns_nobody():
    use(key(), 100, charged=False)

    assert soft_limits.look(now=NOW) == []


def test_a_quota_of_nothing_warns_nobody():
    use(key(daily_quota=0), 5)

    assert soft_limits.look(now=NOW) == []


def test_banners_show_the_highest_warning_until_the_plan_grows():
    own = key(further_quotas={"month": {"requests": 1}})
    use(own, 100)
    soft_limits.look(now=NOW)

    shown = soft_limits.current(own.customer, now=NOW)
    assert {(event.name, event.threshold_percent) for event in shown} == {
        ("day", 100),
        ("month", 100),
    }
    own.customer.limit_overrides = {"daily_quota": 1000}
    own.customer.save()
    assert [e.name for e in soft_limits.current(own.customer, now=NOW)] == ["month"]
    next_month = NOW + datetime.timedelta(days=30)
    assert soft_limits.current(own.customer, now=next_month) == []


def test_an_upgraded_customer_is_warned_again_when_the_larger_quota_runs_low(
    mailoutbox,
):
    own = key()
    use(own, 85)
    soft_limits.look(now=NOW)
    soft_limits.notify(now=NOW)
    own.customer.limit_overrides = {"daily_quota": 1000}
    own.customer.save()

    assert soft_limits.look(now=NOW) == []
    use(own, 720)
    assert thresholds(soft_limits.look(now=NOW)) == [80]
    assert soft_limits.look(now=NOW) == []
    soft_limits.notify(now=NOW)

    assert [mail.body.split(" of the")[0] for mail in mailoutbox] == [
        f"{own.customer.name} has used 85 of 100 rows",
        f"{own.customer.name} has used 805 of 1,000 rows",
    ]


def test_a_quota_that_fills_in_the_last_minute_is_told_after_midnight(mailoutbox):
    midnight = datetime.datetime(2026, 11, 22, tzinfo=datetime.UTC)
    used = key()
    use(used, 100, at=midnight - datetime.timedelta(seconds=20))
    later = midnight + datetime.timedelta(seconds=40)

    found = soft_limits.look(now=later)
    again = soft_limits.look(now=later + datetime.timedelta(minutes=1))
    soft_limits.notify(now=later)

    assert thresholds(found) == [80, 100]
    assert {event.window_start for event in found} == {datetime.date(2026, 11, 21)}
    assert again == []
    [mail] = mailoutbox
    assert mail.subject == "Your daily quota was used up"
    assert "the one from 2026-11-21" in mail.body
    # No banner: the present window is empty.
    assert soft_limits.current(used.customer, now=later) == []


def test_each_window_is_written_about_when_two_fill_around_midnight(mailoutbox):
    midnight = datetime.datetime(2026, 11, 22, tzinfo=datetime.UTC)
    own = key()
    use(own, 100, at=midnight - datetime.timedelta(seconds=20))
    use(own, 85, at=midnight + datetime.timedelta(seconds=20))
    later = midnight + datetime.timedelta(seconds=40)

    soft_limits.look(now=later)
    soft_limits.notify(now=later)

    assert sorted(mail.subject for mail in mailoutbox) == [
        "Your daily quota is running low",
        "Your daily quota was used up",
    ]
