"""Run the controller's steps: lead, publish, reconcile, and keep the usage ledger.

Several controllers may run; the database names the leader. Each step has its own
interval; a step that fails for any reason is logged and tried again. The ledger has its
own thread, so that a revoked key never waits until usage is read.
"""

import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import django.db
import structlog
from django.conf import settings
from django.db import connection
from django.utils import timezone

from accounts.usage import roll_ups
from inference.controller import (
    engine_records,
    incidents,
    ledger,
    ownership,
    publishing,
)
from inference.controller.engine_links import EngineLink
from inference.controller.leadership import LEADERSHIP_TTL_S, Predecessor, lead, resign
from inference.controller.reconciling import Reconciler
from inference.controller.rollouts import examples, feedback
from inference.controller.rollouts import step as rollouts
from inference.engine.clients.blocking_client import BlockingEngineClient
from inference.feedback import storing
from inference.installation import ledger_report
from inference.installation.home import Home
from inference.installation.ledger_report import JobCounts
from inference.metrics.counts import HERE
from inference.models import JobTotals
from inference.snapshot import snapshot_file
from inference.snapshot.contents import Snapshot

_RENEW_S = 3.0
_PUBLISH_S = 0.2
_RECONCILE_S = 0.5
_INGEST_S = 1.0
_ROLLOUTS_S = 1.0
_CLEAN_UP_S = 600.0
_CLOCK_TOLERANCE_S = 2.0
# Rows are updated at once if an engine's report changed, else this often.
_RECORD_S = 10.0
# A new controller waits so long for the first answer of an engine.
_FIRST_ANSWER_S = 3.0

logger = structlog.get_logger(__name__)


class Controller:
    """One controller process; `run` returns after `stop` was called."""

    def __init__(
        self,
        home: Home,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
        make_link: Callable[[str, str], EngineLink] | None = None,
    ) -> None:
        self.holder = uuid.uuid4().hex
        self._predecessor = Predecessor(home.controller, successor=self.holder)
        self._home = home
        self._clock = clock
        self._wall_clock = wall_clock
        # The difference of the clocks; it changes when the wall clock is set.
        self._difference_s = wall_clock() - clock()
        self._make_link = make_link or _start_link
        self._stop = threading.Event()
        self._links: dict[str, EngineLink] = {}
        # When each engine was recorded last, and with which facts.
        self._recorded: dict[str, tuple[float, object]] = {}
        self._recorded_hosts: dict[str, tuple[float, object]] = {}
        # The engines that have rows.
        self._planned: set[str] | None = None
        # Since when each link waits for its engine's first answer.
        self._since: dict[str, float] = {}
        self._reconciler = Reconciler(home)
        self._publisher = publishing.Publisher(home.snapshot)
        self._leads_until = 0.0
        # Another home owns the database, and this home's gateways have no keys.
        self._withdrawn = False
        self._due: dict[str, float] = {}

    def stop(self) -> None:
        self._stop.set()

    def run(self) -> None:
        """Run steps until `stop`, then resign."""
        logger.info("controller_started", holder=self.holder)
        ledger_thread = threading.Thread(target=self._keep_ledger, name="ledger")
        ledger_thread.start()
        while not self._stop.wait(_PUBLISH_S):
            self.step()
        ledger_thread.join()
        for link in self._links.values():
            link.stop()
        self._guard("resign", lambda: resign(self.holder, now=timezone.now()))
        self._publisher.close()
        self._predecessor.close()
        logger.info("controller_stopped", holder=self.holder)

    def step(self) -> None:
        """Run all steps that are due, except the ledger."""
        self._every("lead", _RENEW_S, self._lead)
        if not self._leads():
            return
        self._guard("clock", self._check_clock)
        self._guard("publish", self._publish_if_changed)
        self._every("reconcile", _RECONCILE_S, self._reconcile)
        self._every("feedback", _ROLLOUTS_S, self._count_feedback)
        self._every("rollouts", _ROLLOUTS_S, self._step_rollouts)
        self._every("report_ledger", _RECORD_S, self._report_ledger)
        self._every("clean_up", _CLEAN_UP_S, self._clean_up)

    def _keep_ledger(self) -> None:
        """Ingest usage until `stop`, in a thread with its own database connection."""
        while not self._stop.wait(_INGEST_S):
            if self._leads():
                self._guard("ingest", self._ingest)
        connection.close()

    def _leads(self) -> bool:
        return self._clock() < self._leads_until

    def _every(self, name: str, interval_s: float, action: Callable[[], None]) -> None:
        now_s = self._clock()
        if now_s < self._due.get(name, 0.0):
            return
        self._due[name] = now_s + interval_s
        self._guard(name, action)

    def _guard(self, step: str, action: Callable[[], None]) -> None:
        failing = f"controller step {step}"
        try:
            action()
        except (django.db.OperationalError, django.db.InterfaceError) as error:
            HERE.add("controller_step_failures", step)
            logger.warning(
                "database_unavailable", outage="database", step=step, reason=error
            )
            connection.close()
        except django.db.Error as error:
            HERE.add("controller_step_failures", step)
            # No traceback: its last line may hold data.
            logger.error(
                "controller_step_failed", outage=failing, step=step, reason=error
            )
            connection.close()
        except Exception as error:
            HERE.add("controller_step_failures", step)
            # The process's boundary: the other steps continue.
            logger.exception(
                "controller_step_failed", outage=failing, step=step, reason=error
            )
        else:
            logger.info("controller_step_recovered", outage_over=failing, step=step)

    def _lead(self) -> None:
        asked_s = self._clock()
        led = self._leads()
        try:
            ownership.claim(self._home, now=timezone.now())
        except ownership.OtherHome as error:
            self._leads_until = 0.0
            logger.error(
                "database_of_another_home", outage="ownership", reason=str(error)
            )
            if isinstance(error, ownership.TakenOver):
                self._withdraw()
            return
        self._withdrawn = False
        logger.info("database_of_this_home", outage_over="ownership")
        self._predecessor.dismiss(now=timezone.now())
        leads = lead(self.holder, now=timezone.now())
        logger.info("database_available", outage_over="database")
        if not leads:
            self._leads_until = 0.0
            # A standby tries more often than the leader renews.
            self._due["lead"] = asked_s + 1.0
            return
        self._leads_until = asked_s + LEADERSHIP_TTL_S
        if not led:
            logger.info("controller_leads", holder=self.holder)
            self._take_over()

    def _withdraw(self) -> None:
        """Take all keys from gateways, which no longer learn which ones are revoked."""
        if not self._withdrawn:
            nothing = Snapshot(sequence=0, published_at=0.0)
            snapshot_file.write(self._home.snapshot, nothing)
            self._withdrawn = True

    def _take_over(self) -> None:
        """Start from the published file, which may be gone or older than the row."""
        self._reconciler = Reconciler(self._home)
        self._publisher.close()
        self._due = {"lead": self._due["lead"]}
        self._planned = None
        self._discover_engines()
        try:
            found = snapshot_file.read(self._home.snapshot)
            self._reconciler.saw_published(found.models)
        except (OSError, snapshot_file.SnapshotCorrupt):
            logger.info("snapshot_missing_or_corrupt")
        publishing.mark_changed()

    def _check_clock(self) -> None:
        """Publish everything if the clock was set, because keys expire by it."""
        moved_s = self._wall_clock() - self._clock() - self._difference_s
        if abs(moved_s) < _CLOCK_TOLERANCE_S:
            return
        logger.warning("clock_was_set", seconds=round(moved_s, 1))
        publishing.mark_changed()
        self._difference_s += moved_s

    def _publish_if_changed(self) -> None:
        if publishing.pending_sequence() is None:
            return
        # First the routes, so that this snapshot contains changed weights.
        self._compare(self._clock())
        started_s = self._clock()
        published = self._publisher.publish(now=timezone.now())
        self._reconciler.saw_published(published.models)
        HERE.add("snapshots_published", "whole" if published.whole else "changes")
        logger.info(
            "snapshot_published",
            sequence=published.sequence,
            whole=published.whole,
            models=len(published.models),
            duration_ms=round((self._clock() - started_s) * 1000),
        )

    def _reconcile(self) -> None:
        self._discover_engines()
        now_s = self._clock()
        running = self._reconciler.placer.running()
        for name, link in self._links.items():
            view = link.view
            one = running.get(name)
            if not view.asked or one is None:
                continue
            leaving = self._reconciler.placer.leaving(name)
            leaks = self._reconciler.incidents.is_leaking(one)
            facts = (view.facts, one.planned, one.state, leaving, leaks)
            at, before = self._recorded.get(name, (float("-inf"), None))
            if now_s - at < _RECORD_S and facts == before:
                continue
            engine_records.record(
                view, now=timezone.now(), running=one, leaving=leaving, leaks=leaks
            )
            self._recorded[name] = (now_s, facts)
        self._record_hosts(now_s)
        self._compare(now_s)

    def _record_hosts(self, now_s: float) -> None:
        lacking = self._reconciler.placer.placement.lacking
        for host, report in self._reconciler.placer.reports().items():
            facts = (report.devices, report.memory_bytes, report.walls, lacking)
            at, before = self._recorded_hosts.get(host, (float("-inf"), None))
            if now_s - at < _RECORD_S and facts == before:
                continue
            engine_records.record_host(report, lacking)
            self._recorded_hosts[host] = (now_s, facts)

    def _compare(self, now_s: float) -> None:
        waiting = (name for name, link in self._links.items() if not link.view.asked)
        # One that hangs before its first answer must not keep the others waiting.
        if all(now_s - self._since[name] >= _FIRST_ANSWER_S for name in waiting):
            self._reconciler.reconcile(self._links, now_s=now_s)

    def _discover_engines(self) -> None:
        """Find the engines that plans name by the sockets that they create."""
        planned = self._reconciler.placer.running()
        found = self._sockets()
        for name in (found.keys() & planned.keys()) - self._links.keys():
            self._links[name] = self._make_link(name, str(found[name]))
            self._since[name] = self._clock()
        for name in self._links.keys() - planned.keys():
            self._links.pop(name).stop()
            self._since.pop(name)
            self._recorded.pop(name, None)
        if planned and planned.keys() != self._planned:
            # A process that is gone for good is no engine that does not answer.
            engine_records.forget(planned.keys())
            self._planned = set(planned)

    def _sockets(self) -> dict[str, Path]:
        return {
            path.stem.removeprefix("engine-"): path
            for path in self._home.run.glob("engine-*.sock")
        }

    def _ingest(self) -> None:
        now = timezone.now()
        done = ledger.ingest(self._home.spool, now=now)
        if not done.caught_up:
            logger.warning(
                "spool_ingestion_is_behind", outage="ingestion", events=done.events
            )
        else:
            logger.info("spool_ingestion_caught_up", outage_over="ingestion")
        ledger.settle_dead_holders(self._home.spool, now=now)
        examples.take(self._home.shadow_examples)

    def _count_feedback(self) -> None:
        feedback.count(now=timezone.now())

    def _step_rollouts(self) -> None:
        rollouts.step(now=timezone.now())

    def _report_ledger(self) -> None:
        now = timezone.now()
        report = ledger_report.LedgerReport(
            at=now.timestamp(),
            roll_up_lag_s=roll_ups.lag(now=now).total_seconds(),
            jobs=[
                JobCounts(
                    model=it.model,
                    version=str(it.version),
                    variant=it.variant,
                    requests=it.requests,
                    rows=it.rows,
                    compute_us=it.compute_us,
                )
                for it in JobTotals.objects.all()
            ],
        )
        ledger_report.write(self._home.ledger_report, report)

    def _clean_up(self) -> None:
        now = timezone.now()
        ledger.delete_old_segments(
            self._home.spool, now=now, max_bytes=settings.MODELYARD_SPOOL_MAX_BYTES
        )
        incidents.prune(now=now)
        examples.delete_old(now=now)
        storing.delete_old(now=now)


def _start_link(name: str, address: str) -> EngineLink:
    client = BlockingEngineClient(Path(address))
    link = EngineLink(name=name, address=address, client=client)
    link.start()
    return link
