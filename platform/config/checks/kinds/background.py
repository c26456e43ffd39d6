"""Look at what worker and beat do in the background, by what they leave behind."""

import os
from datetime import UTC, datetime, timedelta

from django.conf import settings
from django.utils import timezone

from config.checks import presence
from config.checks.finding import Finding, fault, in_words, or_well, warning
from inference.metrics import own_reports
from inference.models import PredictionJob
from registry.models import RegistrySync

TITLE = "Background work"
# Three rounds of the sync with MLflow, which beat asks for each minute.
_IDLE_AFTER = timedelta(minutes=3)
# A sync of many models takes long.
_SYNC_TAKES_AT_MOST = timedelta(minutes=30)
_STARTS_WITHIN = timedelta(minutes=2)
# Those without a port; gateways and the host have findings of their own.
_PROCESSES = ("site", "internal", "controller", "worker", "beat")
_JOB_WAITS_LONG = timedelta(minutes=10)

IDLE = fault(
    "background-idle",
    "Worker or beat have done nothing for {age}.",
    cost="Jobs wait, models are not read from MLflow, and usage is not added up.",
    mend="sudo journalctl -u modelyard -n 200 -o cat | grep -E 'worker|beat'",
)
JOB_WAITS = warning(
    "job-waits",
    "Jobs that wait for a worker: {count}, the oldest for {age}.",
    cost="Customers wait for their results.",
    mend="In the admin, Prediction jobs says why each waits. If workers are busy, "
    "start another: python -m celery -A config worker",
)
AWAY = fault(
    "process-away",
    "These processes do not report: {names}.",
    cost="Without site no pages, without internal no quotas, without controller no "
    "changes, without worker or beat no jobs and no new models.",
    mend="sudo journalctl -u modelyard -n 200 -o cat | grep -E '{pattern}'",
)
PROBLEMS = (AWAY, IDLE, JOB_WAITS)


def look() -> list[Finding]:
    if stopped := presence.not_running():
        return stopped
    sync = RegistrySync.objects.filter(pk=1).first() or RegistrySync()
    pending = PredictionJob.objects.filter(
        status=PredictionJob.Status.PENDING
    ).order_by("created_at")
    now = timezone.now()
    reports = own_reports.read(settings.HOME.own_reports)
    return judge(
        now=now,
        reporting={
            it.process.partition("-")[0]
            for it in reports
            if it.is_fresh(now.timestamp())
        },
        started_at=_started_at(),
        synced_at=sync.attempted_at,
        syncing_since=sync.running_since,
        jobs=pending.count(),
        oldest_job_at=pending.values_list("created_at", flat=True).first(),
    )


def judge(
    *,
    now: datetime,
    reporting: set[str],
    started_at: datetime | None,
    synced_at: datetime | None,
    syncing_since: datetime | None = None,
    jobs: int = 0,
    oldest_job_at: datetime | None = None,
) -> list[Finding]:
    """Beat's first messages come a minute after its start."""
    found = []
    young = started_at is not None and now - started_at < _STARTS_WITHIN
    away = [name for name in _PROCESSES if name not in reporting]
    if away and not young:
        found.append(AWAY.found(names=", ".join(away), pattern="|".join(away)))
    busy = syncing_since is not None and now - syncing_since < _SYNC_TAKES_AT_MOST
    last = max((at for at in (started_at, synced_at) if at is not None), default=now)
    if now - last > _IDLE_AFTER and not busy:
        found.append(IDLE.found(age=in_words((now - last).total_seconds())))
    if oldest_job_at is not None and now - oldest_job_at > _JOB_WAITS_LONG:
        age = in_words((now - oldest_job_at).total_seconds())
        found.append(JOB_WAITS.found(count=jobs, age=age))
    return or_well(found, f"Worker and beat work; {jobs} jobs wait.")


def _started_at() -> datetime | None:
    """Return when `serve` started; None if it does not run, as in containers."""
    if presence.supervisor() is None:
        return None
    written = os.stat(settings.HOME.root / "supervisor.lock").st_mtime
    return datetime.fromtimestamp(written, UTC)
