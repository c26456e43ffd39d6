"""The controller: the one process that publishes, reconciles and keeps the ledger.

Several may run; the one that holds the database lease leads. Each step is repeated on
its own interval; a step that fails is logged and tried again, whatever the reason.
"""

import threading
import time
import uuid
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import django.db
import structlog
from django.db import connection
from django.db.models import Q
from django.utils import timezone

from inference import engine_records, ledger, publishing, snapshot
from inference.engine.client import BlockingEngineClient
from inference.engine_links import EngineLink
from inference.home import Home
from inference.models import ControllerLease
from inference.reconciling import Reconciler

LEASE_TTL_S = 9.0
_RENEW_S = 3.0
_PUBLISH_S = 0.2
_RECONCILE_S = 0.5
_INGEST_S = 1.0
_CLEAN_UP_S = 600.0
# Rows follow a report at once when something changed, else this often.
_RECORD_S = 10.0

logger = structlog.get_logger(__name__)


def lead(holder: str, *, now: datetime) -> bool:
    """Take or renew the lease; true if `holder` leads until LEASE_TTL_S from now."""
    expires_at = now + timedelta(seconds=LEASE_TTL_S)
    mine_or_free = Q(holder=holder) | Q(expires_at__lt=now)
    if ControllerLease.objects.filter(mine_or_free, pk=1).update(
        holder=holder, expires_at=expires_at
    ):
        return True
    created = ControllerLease(pk=1, holder=holder, expires_at=expires_at)
    ControllerLease.objects.bulk_create([created], ignore_conflicts=True)
    return ControllerLease.objects.filter(
        pk=1, holder=holder, expires_at=expires_at
    ).exists()


def resign(holder: str, *, now: datetime) -> None:
    """Let the next controller take over at once."""
    ControllerLease.objects.filter(pk=1, holder=holder).update(
        holder="", expires_at=now - timedelta(seconds=1)
    )


class Controller:
    """One controller process; `run` returns when `stop` was called."""

    def __init__(
        self,
        home: Home,
        *,
        clock: Callable[[], float] = time.monotonic,
        make_link: Callable[[str, str], EngineLink] | None = None,
    ) -> None:
        self.holder = uuid.uuid4().hex
        self._home = home
        self._clock = clock
        self._make_link = make_link or _start_link
        self._stop = threading.Event()
        self._links: dict[str, EngineLink] = {}
        # When each engine was recorded last, and with which facts.
        self._recorded: dict[str, tuple[float, object]] = {}
        self._reconciler = Reconciler(artifacts=home.artifacts)
        self._leads_until = 0.0
        self._due: dict[str, float] = {}

    def stop(self) -> None:
        self._stop.set()

    def run(self) -> None:
        """Step until told to stop; then resign."""
        logger.info("controller_started", holder=self.holder)
        while not self._stop.wait(_PUBLISH_S):
            self.step()
        for link in self._links.values():
            link.stop()
        self._guard("resign", lambda: resign(self.holder, now=timezone.now()))
        logger.info("controller_stopped", holder=self.holder)

    def step(self) -> None:
        """Do everything that is due."""
        self._every("lead", _RENEW_S, self._lead)
        if self._clock() >= self._leads_until:
            return
        self._guard("publish", self._publish_if_changed)
        self._every("reconcile", _RECONCILE_S, self._reconcile)
        self._every("ingest", _INGEST_S, self._ingest)
        self._every("clean_up", _CLEAN_UP_S, self._clean_up)

    def _every(self, name: str, interval_s: float, action: Callable[[], None]) -> None:
        now_s = self._clock()
        if now_s < self._due.get(name, 0.0):
            return
        self._due[name] = now_s + interval_s
        self._guard(name, action)

    def _guard(self, step: str, action: Callable[[], None]) -> None:
        try:
            action()
        except django.db.Error as error:
            # The text may hold data; the kind tells an outage from a broken query.
            logger.warning(
                "database_unavailable", step=step, error=type(error).__name__
            )
            connection.close()
        except Exception:
            # The process's boundary: the other steps go on.
            logger.exception("controller_step_failed", step=step)

    def _lead(self) -> None:
        asked_s = self._clock()
        led = asked_s < self._leads_until
        if not lead(self.holder, now=timezone.now()):
            self._leads_until = 0.0
            # A standby looks more often than the leader renews.
            self._due["lead"] = asked_s + 1.0
            return
        self._leads_until = asked_s + LEASE_TTL_S
        if not led:
            logger.info("controller_leads", holder=self.holder)
            self._take_over()

    def _take_over(self) -> None:
        """Start from what is published; the file may be gone or older than the row."""
        self._reconciler = Reconciler(artifacts=self._home.artifacts)
        self._due = {"lead": self._due["lead"]}
        self._discover_engines()
        try:
            self._reconciler.saw_published(snapshot.read(self._home.snapshot))
        except (OSError, snapshot.SnapshotCorrupt):
            logger.info("snapshot_missing_or_corrupt")
        publishing.mark_changed()

    def _publish_if_changed(self) -> None:
        if publishing.pending_sequence() is None:
            return
        # First the routes: a weight that people moved is in this very snapshot.
        self._compare(self._clock())
        started_s = self._clock()
        published = publishing.publish(now=timezone.now())
        self._reconciler.saw_published(published)
        logger.info(
            "snapshot_published",
            sequence=published.sequence,
            models=len(published.models),
            keys=len(published.keys),
            duration_ms=round((self._clock() - started_s) * 1000),
        )

    def _reconcile(self) -> None:
        self._discover_engines()
        now_s = self._clock()
        for name, link in self._links.items():
            view = link.view
            at, facts = self._recorded.get(name, (float("-inf"), None))
            if not view.asked or (now_s - at < _RECORD_S and facts == view.facts):
                continue
            engine_records.record(view, now=timezone.now())
            self._recorded[name] = (now_s, view.facts)
        self._compare(now_s)

    def _compare(self, now_s: float) -> None:
        if all(link.view.asked for link in self._links.values()):
            self._reconciler.reconcile(self._links, now_s=now_s)

    def _discover_engines(self) -> None:
        """Follow the engines' sockets: each engine makes one in the run folder."""
        found = self._sockets()
        for name in found.keys() - self._links.keys():
            self._links[name] = self._make_link(name, str(found[name]))

    def _sockets(self) -> dict[str, Path]:
        return {
            path.stem.removeprefix("engine-"): path
            for path in self._home.run.glob("engine-*.sock")
        }

    def _ingest(self) -> None:
        now = timezone.now()
        done = ledger.ingest(self._home.spool, now=now)
        if not done.caught_up:
            logger.warning("spool_ingestion_is_behind", events=done.events)
        ledger.settle_dead_holders(self._home.spool, now=now)

    def _clean_up(self) -> None:
        now = timezone.now()
        ledger.delete_old_segments(self._home.spool, now=now)
        for name in engine_records.forget_gone(set(self._sockets()), now=now):
            if link := self._links.pop(name, None):
                link.stop()
            self._recorded.pop(name, None)


def _start_link(name: str, address: str) -> EngineLink:
    client = BlockingEngineClient(Path(address))
    link = EngineLink(name=name, address=address, client=client)
    link.start()
    return link
