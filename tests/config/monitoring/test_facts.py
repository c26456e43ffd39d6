import datetime
import logging

import celery
import kombu
import pytest
from django.conf import settings
from django.core.cache import cache
from django.db import OperationalError, connection
from django.utils import timezone

from accounts.metering.spool import SpoolWriter
from accounts.usage import recording
from config.monitoring import facts
from inference.metrics import own_reports
from inference.metrics.table import METRICS, MOST_CUSTOMERS
from registry.models import RegistrySync
from tests.accounts.metering.test_spool import event
from tests.factories import CustomerFactory
from tests.factories_jobs import make_job
from tests.factories_serving import RolloutFactory

pytestmark = pytest.mark.django_db

NOW = timezone.now()
needs_folder = pytest.mark.skipif(
    not settings.CELERY_BROKER_URL.startswith("filesystem"),
    reason="its broker is a server",
)


@pytest.fixture(autouse=True)
def broker(home):
    """Give the test a broker of its own."""
    app = celery.current_app
    before = dict(app.conf.broker_transport_options)
    app.conf.broker_transport_options = {"folder": str(home.broker)}
    app.pool.force_close_all()
    yield home.broker
    app.conf.broker_transport_options = before
    app.pool.force_close_all()


def gathered(now=NOW):
    found = list(facts.gather(now=now))
    for gauge in found:
        assert METRICS[gauge.name].labels == tuple(gauge.labels)
    return {(it.name, *it.labels.values()): it.value for it in found}


@pytest.mark.django_db(transaction=True)
def test_the_file_holds_what_was_gathered(home):
    facts.write()

    found = own_reports.read_facts(home.facts)
    names = {it.name for it in found.gauges}
    assert {"dependency_up", "jobs", "waiting_messages"} <= names


def test_jobs_are_counted_by_state_with_the_age_of_the_oldest():
    hour = datetime.timedelta(hours=1)
    for fields in (
        {"status": "pending"},
        {"status": "pending"},
        {"status": "processing"},
        {"status": "processing", "waiting_since": NOW},
        {"status": "failed", "completed_at": NOW - hour},
        {"status": "failed", "completed_at": NOW - 30 * hour},
    ):
        make_job(**fields)

    found = gathered(now=timezone.now() + hour)

    assert found["jobs", "pending"] == 2
    assert found["jobs", "processing"] == 1
    assert found["jobs", "waiting"] == 1
    assert 3600 <= found["job_oldest_age_seconds", "pending"] < 3700
    assert found["jobs_ended_today", "failed"] == 1
    assert found["jobs_ended_today", "completed"] == 0


def test_without_jobs_there_is_no_oldest():
    found = gathered()

    assert found["jobs", "pending"] == 0
    assert [key for key in found if key[0] == "job_oldest_age_seconds"] == []


def test_rollouts_that_have_not_ended_are_counted_by_state():
    RolloutFactory.create(state="paused")
    RolloutFactory.create(state="running")
    RolloutFactory.create(state="rolled_back", ended_at=NOW)

    found = gathered()

    rollouts = {key[1]: number for key, number in found.items() if key[0] == "rollouts"}
    assert rollouts == {"waiting": 0, "running": 1, "paused": 1, "approval": 0}


def test_the_last_sync_shows_its_age_and_whether_it_failed():
    assert ("registry_sync_failing",) not in gathered()
    ago = NOW - datetime.timedelta(seconds=90)
    RegistrySync.objects.create(pk=1, succeeded_at=ago, error="MLflow is away")

    found = gathered()

    assert found["registry_sync_failing",] == 1
    assert found["registry_sync_age_seconds",] == 90


def test_events_that_were_not_counted_are_measured_in_bytes(home):
    writer = SpoolWriter(home.spool, "boot")
    writer.append([event(1), event(2)])
    before = gathered()["spool_uncounted_bytes",]
    [path] = home.spool.glob("*")

    recording.record(path.name, [], path.stat().st_size)

    assert before == path.stat().st_size
    assert gathered()["spool_uncounted_bytes",] == 0
    writer.close()


def test_the_busiest_customers_have_series_of_their_own():
    customers = CustomerFactory.create_batch(MOST_CUSTOMERS + 2)
    at = NOW.timestamp()
    events = [
        event(
            2, customer_id=customer.pk, key_id=f"k{customer.pk}", at=at, status=status
        )
        for number, customer in enumerate(customers)
        for status in (200, 503, *[200] * number)
    ]
    recording.record("a-1.spool", events, 1)

    found = gathered()

    shown = {key[1] for key in found if key[0] == "customer_recent_rows"}
    assert shown == {str(customer.pk) for customer in customers[2:]}
    busiest = str(customers[-1].pk)
    assert found["customer_recent_calls", busiest, "2xx"] == MOST_CUSTOMERS + 2
    assert found["customer_recent_calls", busiest, "5xx"] == 1


@pytest.mark.django_db(transaction=True)
def test_a_database_that_fails_is_down_and_hides_only_its_own_facts():
    def fail(*_):
        raise OperationalError("no connection")

    with connection.execute_wrapper(fail):
        found = gathered()

    assert found["dependency_up", "database"] == 0
    assert found["dependency_up", "broker"] == 1
    assert ("jobs", "pending") not in found


@needs_folder
def test_messages_that_no_worker_takes_are_counted(broker):
    assert gathered()["waiting_messages",] == 0
    for name in ("1", "2"):
        (broker / f"{name}.celery.msg").write_bytes(b"{}")

    assert gathered()["waiting_messages",] == 2


@needs_folder
def test_a_broker_without_its_folder_is_down(broker):
    broker.rmdir()

    assert gathered()["dependency_up", "broker"] == 0


def test_a_broker_that_does_not_answer_is_down(monkeypatch):
    monkeypatch.setattr(
        celery.current_app,
        "connection_for_read",
        lambda **_: kombu.Connection("amqp://127.0.0.1:1//"),
    )

    found = gathered()

    assert found["dependency_up", "broker"] == 0
    assert ("waiting_messages",) not in found


@pytest.mark.parametrize("part", ["cache", "broker", "facts"])
@pytest.mark.django_db(transaction=True)
def test_what_is_away_is_said_once_and_once_when_it_is_back(
    part, home, caplog, monkeypatch
):
    def fail(*_, **__):
        raise OperationalError("no connection to pg://a:s3cret@b")

    facts.write()
    with caplog.at_level(logging.INFO), monkeypatch.context() as away:
        if part == "facts":
            away.setattr(facts, "_OF_THE_DATABASE", (fail,))
        elif part == "cache":
            away.setattr(type(cache._connections["default"]), "get", fail)
        else:
            away.setattr(facts.broker, "waiting_messages", fail)
        caplog.clear()
        for _ in range(3):
            facts.write()
        away.undo()
        for _ in range(2):
            facts.write()

    told = [one.msg for one in caplog.records if isinstance(one.msg, dict)]
    assert [one["event"] for one in told] == [
        f"{part}_unavailable",
        f"{part}_available",
    ]
    assert told[0]["reason"] == "OperationalError: no connection to pg://a:…@b"
    assert told[1]["failures"] == 3
