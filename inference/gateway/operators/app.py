"""Serve the operators' port: metrics and readiness.

All gateways of a machine listen on it; the one that gets a request answers for all.
"""

import asyncio
import itertools
import os
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import msgspec
from prometheus_client.core import Metric

from accounts.admission.limits import Recall
from inference.gateway.driver.engines import Engines
from inference.gateway.driver.health import Health
from inference.gateway.driver.lease_client import LeaseClient
from inference.gateway.driver.recorder import Recorder
from inference.gateway.http1.asgi import Message, Receive, Send
from inference.gateway.metrics import processes
from inference.gateway.metrics.calls import Metrics
from inference.gateway.metrics.families import write
from inference.gateway.metrics.gauges import of_gauges
from inference.gateway.operators.reports import GatewayReport, metrics_of, readiness
from inference.gateway.operators.siblings import Siblings
from inference.gateway.relay.forwarders import Forwarders
from inference.gateway.relay.relay import respond
from inference.installation import ledger_report
from inference.installation.home import Home
from inference.installation.ledger_report import Gauge, LedgerReport
from inference.metrics import own_reports
from inference.metrics.own_use import own_use
from inference.placement import report_file, report_gauges
from inference.prediction.plan import PredictionPlan
from inference.snapshot.tables import Tables

_recall_decoder = msgspec.json.Decoder(Recall)
_METRICS_TYPE = b"text/plain; version=0.0.4; charset=utf-8"


class Reporter:
    """Make the report of this gateway."""

    def __init__(
        self,
        *,
        plan: PredictionPlan,
        engines: Engines,
        metrics: Metrics,
        recorder: Recorder,
        leases: LeaseClient,
        name: str = "gateway",
        boot_id: str = "",
        home: Home | None = None,
        certificate_ends: Callable[[], float | None] = lambda: None,
        forwarders: Forwarders | None = None,
    ) -> None:
        self._plan = plan
        self._engines = engines
        self._metrics = metrics
        self._recorder = recorder
        self._leases = leases
        self._health = Health(plan.tables, engines, recorder)
        self._name = name
        self._boot_id = boot_id
        self._home = home
        self._certificate_ends = certificate_ends
        self._forwarders = forwarders or Forwarders(plan.trusted_proxies)

    def report(self) -> GatewayReport:
        home = self._home
        ledger = ledger_report.read(home.ledger_report) if home else None
        return GatewayReport(
            name=self._name,
            boot_id=self._boot_id,
            metrics=self._metrics.state(),
            gauges=self._gauges(ledger),
            jobs=ledger.jobs if ledger is not None else [],
            ready=self._health.ready,
            waiting_for=list(
                dict.fromkeys(
                    (
                        *self._health.obstacles(),
                        *self._health.away(),
                        *self._health.coming(),
                    )
                )
            ),
            snapshot_sequence=self._plan.tables.sequence,
            engines={
                name: msgspec.to_builtins(msgspec.structs.asdict(report))
                for name, report in self._engines.reports.items()
            },
            use=own_use(),
            relayed=self._forwarders.requests,
            distrusted=self._forwarders.distrusted,
            distrusted_peer=self._forwarders.distrusted_peer,
        )

    def _gauges(self, ledger: LedgerReport | None) -> list[Gauge]:
        tables = self._plan.tables
        overdrawn = sum(it.overdrawn() for it in tables.admissions.everyone())
        gauges = [
            Gauge("ready", float(self._health.ready)),
            Gauge("snapshot_sequence", float(tables.sequence)),
            Gauge("spool_failing", float(self._recorder.failing)),
            Gauge("spool_bytes", float(self._recorder.writer.used_bytes)),
            Gauge("spool_limit_bytes", float(self._recorder.writer.max_total_bytes)),
            Gauge("leases_failing", float(self._leases.failing)),
            Gauge("overdrawn_units", float(overdrawn)),
        ]
        if tables.sequence:
            age_s = time.time() - tables.published_at
            gauges.append(Gauge("snapshot_age_seconds", age_s))
        if tables.back_offs is not None:
            closed = tables.back_offs.closed_now(time.time())
            gauges.append(Gauge("keys_backing_off", float(closed)))
        for name in tables.engines:
            up = float(name in self._engines.reports)
            gauges.append(Gauge("engine_up", up, {"engine": name}))
        if (ends := self._certificate_ends()) is not None:
            gauges.append(Gauge("grpc_certificate_ends_at_seconds", ends))
        if ledger is not None:
            gauges += ledger_report.gauges(ledger, now=time.time())
        if self._home is not None:
            host = report_file.read(self._home.host_report)
            if host is not None:
                gauges += report_gauges.gauges(host, now=time.time())
            # In a container, a gateway sees only parts of the home.
            gauges += _disk(self._home.spool)
        return gauges

    async def ask_engines(self) -> None:
        """Ask the engines for their present counts.

        Another gateway may have asked them later than this one. If we showed our last
        answer, a count could fall from one scrape to the next.
        """
        await self._engines.ask()


class OperatorApp:
    """The ASGI application of the operators' port."""

    def __init__(
        self,
        reporter: Reporter,
        *,
        siblings: Siblings | None = None,
        names: tuple[str, ...] = (),
        home: Home | None = None,
        others: tuple[str, ...] = (),
    ) -> None:
        """Answer for the gateways `names`, and show the processes `others` too."""
        self._reporter = reporter
        self._siblings = siblings
        self._names = names
        self._home = home
        self._others = others

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        if scope["path"] == "/metrics":
            await self._reporter.ask_engines()
            reports = await self._reports()
            found = metrics_of(reports, expected=self._names)
            text = []
            for piece in write(itertools.chain(found, self._of_processes(reports))):
                text.append(piece)
                # Many models make a long text; let calls go on between its pieces.
                await asyncio.sleep(0)
            await _answer(scope, send, 200, _METRICS_TYPE, b"".join(text))
            return
        if scope["path"] in ("/healthz", "/health"):
            await _answer(scope, send, 200, b"text/plain", b"ok")
            return
        if scope["path"] in ("/readyz", "/ready"):
            detail = readiness(await self._reports(), expected=self._names)
            status = 200 if detail["ready"] else 503
            body = msgspec.json.encode(detail)
            await _answer(scope, send, status, b"application/json", body)
            return
        await _answer(scope, send, 404, b"text/plain", b"/metrics /readyz /healthz")

    def _of_processes(self, gateways: Iterable[GatewayReport]) -> Iterator[Metric]:
        now, home = time.time(), self._home
        reports = own_reports.read(home.own_reports) if home else []
        reports += [processes.of_gateway(it.name, it.use, now=now) for it in gateways]
        yield from processes.of_processes(
            reports, expected=(*self._names, *self._others), now=now
        )
        facts = own_reports.read_facts(home.facts) if home else None
        if facts is not None:
            yield from of_gauges(facts.shown(now))

    async def _reports(self) -> list[GatewayReport]:
        reports = [self._reporter.report()]
        if self._siblings is not None:
            reports += await self._siblings.reports()
        return reports


class ControlApp:
    """The ASGI application of a gateway's own Unix socket.

    Processes of the installation ask it for a report or whether it lives, or recall
    leases.
    """

    def __init__(self, reporter: Reporter, tables: Tables) -> None:
        self._reporter = reporter
        self._tables = tables

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        if scope["path"] == "/recall":
            try:
                recall = _recall_decoder.decode(await _read(receive))
            except msgspec.DecodeError as error:
                await _answer(scope, send, 400, b"text/plain", str(error).encode())
                return
            body = msgspec.json.encode(self._tables.admissions.recall(recall))
            await _answer(scope, send, 200, b"application/json", body)
            return
        if scope["path"] == "/report":
            body = msgspec.msgpack.encode(self._reporter.report())
            await _answer(scope, send, 200, b"application/msgpack", body)
            return
        if scope["path"] == "/healthz":
            await _answer(scope, send, 200, b"text/plain", b"ok")
            return
        await _answer(scope, send, 404, b"text/plain", b"/healthz /report /recall")


def _disk(folder: Path) -> list[Gauge]:
    try:
        disk = os.statvfs(folder)
    except OSError:
        return []
    found = [
        Gauge("disk_free_bytes", float(disk.f_bavail * disk.f_frsize)),
        Gauge("disk_bytes", float(disk.f_blocks * disk.f_frsize)),
    ]
    if disk.f_files:  # Some file systems have no inodes to run out of.
        found.append(Gauge("disk_free_inodes", float(disk.f_favail)))
    return found


async def _read(receive: Receive) -> bytes:
    body = bytearray()
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            return bytes(body)


async def _answer(
    scope: Message, send: Send, status: int, content_type: bytes, body: bytes
) -> None:
    headers = [
        (b"content-type", content_type),
        (b"content-length", b"%d" % len(body)),
        (b"cache-control", b"no-store"),
    ]
    await respond(scope, send, status, headers, body)
