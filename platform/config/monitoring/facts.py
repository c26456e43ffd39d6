"""Ask database, broker and cache what operators want to know of them."""

import datetime
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator

import django.db
import structlog
from django.conf import settings
from django.core.cache import cache
from django.db import close_old_connections, connection
from django.db.models import Case, Count, Min, Sum, Value, When
from django.utils import timezone

from accounts.metering import spool
from accounts.models import SpoolSegment, Usage
from config.monitoring import broker
from inference.installation.ledger_report import Gauge
from inference.metrics import own_reports
from inference.metrics.own_reports import Facts
from inference.metrics.table import MOST_CUSTOMERS, RECENT_S
from inference.models import PredictionJob, Rollout
from registry.models import RegistrySync

_BROKER_TIMEOUT_S = 3.0
_A_DAY = datetime.timedelta(days=1)

logger = structlog.get_logger(__name__)


def write() -> None:
    """Replace the file of this home's facts; raises OSError."""
    close_old_connections()
    gauges = list(gather(now=timezone.now()))
    # Taken now: asking a server that does not answer takes a while.
    facts = Facts(timezone.now().timestamp(), gauges)
    own_reports.write_facts(settings.HOME.facts, facts)


def gather(*, now: datetime.datetime) -> Iterator[Gauge]:
    """Yield what can be found out; what cannot is absent."""
    yield from _cache()
    yield from _broker()
    try:
        found = [gauge for ask in _OF_THE_DATABASE for gauge in ask(now)]
    except django.db.Error as error:
        # The controller's steps say it when the database is away; this one may fail
        # alone, where it only reads.
        logger.warning("facts_unavailable", outage="facts", reason=error)
        connection.close()
        yield Gauge("dependency_up", 0.0, {"dependency": "database"})
        return
    logger.info("facts_available", outage_over="facts")
    yield Gauge("dependency_up", 1.0, {"dependency": "database"})
    yield from found


def _cache() -> Iterator[Gauge]:
    try:
        cache.get("facts")
    except Exception as error:
        # Each kind of cache has exceptions of its own.
        logger.warning("cache_unavailable", outage="cache", reason=error)
        yield Gauge("dependency_up", 0.0, {"dependency": "cache"})
    else:
        logger.info("cache_available", outage_over="cache")
        yield Gauge("dependency_up", 1.0, {"dependency": "cache"})


def _broker() -> Iterator[Gauge]:
    try:
        if settings.CELERY_BROKER_URL.startswith("filesystem:"):
            # Its connections are no more than the folder.
            tempfile.TemporaryFile(dir=settings.HOME.broker).close()
        waiting = broker.waiting_messages(timeout_s=_BROKER_TIMEOUT_S)
    except Exception as error:
        # Each kind of broker has exceptions of its own.
        logger.warning("broker_unavailable", outage="broker", reason=error)
        yield Gauge("dependency_up", 0.0, {"dependency": "broker"})
        return
    logger.info("broker_available", outage_over="broker")
    yield Gauge("dependency_up", 1.0, {"dependency": "broker"})
    if waiting is not None:
        yield Gauge("waiting_messages", float(waiting))


def _jobs(now: datetime.datetime) -> Iterator[Gauge]:
    # `waiting`: no engine takes its next rows.
    state = Case(When(waiting_since=None, then="status"), default=Value("waiting"))
    unfinished = PredictionJob.objects.unfinished().order_by().annotate(state=state)
    found = {
        name: (number, first)
        for name, number, first in unfinished.values_list("state").annotate(
            Count("pk"), Min("created_at")
        )
    }
    for name in ("pending", "processing", "waiting"):
        number, first = found.get(name, (0, now))
        yield Gauge("jobs", float(number), {"state": name})
        if number:
            age_s = (now - first).total_seconds()
            yield Gauge("job_oldest_age_seconds", age_s, {"state": name})
    # The index holds those whose files are not removed yet.
    kept = PredictionJob.objects.filter(removed_at=None)
    recent = kept.filter(completed_at__gte=now - _A_DAY).order_by()
    ended = dict(recent.values_list("status").annotate(number=Count("pk")))
    for name in ("completed", "failed", "cancelled"):
        yield Gauge("jobs_ended_today", float(ended.get(name, 0)), {"state": name})


def _rollouts(_: datetime.datetime) -> Iterator[Gauge]:
    active = Rollout.objects.filter(state__in=Rollout.ACTIVE).order_by()
    found = dict(active.values_list("state").annotate(number=Count("pk")))
    for state in Rollout.ACTIVE:
        yield Gauge("rollouts", float(found.get(state, 0)), {"state": state.value})


def _registry(now: datetime.datetime) -> Iterator[Gauge]:
    sync = RegistrySync.objects.filter(pk=1).first()
    if sync is None:
        return
    yield Gauge("registry_sync_failing", float(bool(sync.error)))
    if sync.succeeded_at is not None:
        age_s = (now - sync.succeeded_at).total_seconds()
        yield Gauge("registry_sync_age_seconds", age_s)


def _spool(_: datetime.datetime) -> Iterator[Gauge]:
    counted = dict(SpoolSegment.objects.values_list("name", "ingested_bytes"))
    waiting = 0
    for path in settings.HOME.spool.glob(f"*{spool.SUFFIX}"):
        try:
            size = path.stat().st_size
        except FileNotFoundError:
            continue  # It was counted and removed meanwhile.
        waiting += max(0, size - counted.get(path.name, 0))
    yield Gauge("spool_uncounted_bytes", float(waiting))


def _customers(now: datetime.datetime) -> Iterator[Gauge]:
    since = now - datetime.timedelta(seconds=RECENT_S)
    calls: dict[int, Counter[str]] = defaultdict(Counter)
    rows: Counter[int] = Counter()
    recent = Usage.objects.filter(minute__gte=since).order_by()
    for row in recent.values("customer_id", "status").annotate(
        calls=Sum("requests"), sum_of_rows=Sum("rows")
    ):
        calls[row["customer_id"]][f"{row['status'] // 100}xx"] += row["calls"]
        rows[row["customer_id"]] += row["sum_of_rows"]
    busiest = sorted(calls, key=lambda one: calls[one].total(), reverse=True)
    for customer in busiest[:MOST_CUSTOMERS]:
        labels = {"customer": str(customer)}
        yield Gauge("customer_recent_rows", float(rows[customer]), labels)
        for status, number in calls[customer].items():
            yield Gauge(
                "customer_recent_calls", float(number), {**labels, "status": status}
            )


_OF_THE_DATABASE: tuple[Callable[[datetime.datetime], Iterator[Gauge]], ...] = (
    _jobs,
    _rollouts,
    _registry,
    _spool,
    _customers,
)
