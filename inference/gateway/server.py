"""The gateway process: two ports, one event loop, and what runs beside them."""

import asyncio
import contextlib
import gc
import secrets
import signal
import socket
import time
from collections.abc import Iterator

import httpx
import structlog
import uvicorn

from inference.engine.client import SocketEngineClient
from inference.gateway.app import GatewayApp
from inference.gateway.clients import SlowBodies, SlowHeaders
from inference.gateway.engines import Engines
from inference.gateway.http import GatewayProtocol
from inference.gateway.leases import LeaseClient
from inference.gateway.operator_app import OperatorApp
from inference.gateway.recorder import Recorder
from inference.gateway.relay import Relay
from inference.gateway.settings import GatewaySettings
from inference.gateway.snapshots import SnapshotWatcher
from inference.metrics import Metrics
from inference.prediction import PredictionPlan
from inference.snapshot import Snapshot
from inference.spool import SpoolWriter
from inference.tables import Tables

logger = structlog.get_logger(__name__)

_BACKLOG = 2048
_KEEP_ALIVE_S = 30
# Connections to the site go before its own server (2 s) closes them.
_SITE_CONNECTIONS = httpx.Limits(
    max_connections=100, max_keepalive_connections=20, keepalive_expiry=1.0
)
# Far fewer collections of the youngest generation: requests make little garbage in
# cycles, and each pass shows in the slowest answers.
_GC_THRESHOLD = 20_000


class _Server(uvicorn.Server):
    """Leaves signals to the process, which has two of these."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def serve(
    settings: GatewaySettings, public: socket.socket, operator: socket.socket
) -> None:
    """Serve both sockets until SIGTERM or SIGINT, then drain."""
    settings.home.prepare()
    boot_id = secrets.token_hex(8)
    tables = Tables()
    plan = PredictionPlan(
        tables,
        boot_id=boot_id,
        max_body_bytes=settings.max_body_bytes,
        max_timeout_s=settings.max_timeout_s,
    )
    engines = Engines(SocketEngineClient)
    writer = SpoolWriter(
        settings.home.spool, boot_id, max_total_bytes=settings.spool_max_bytes
    )
    recorder = Recorder(writer)
    metrics = Metrics()
    leases = LeaseClient(
        holder=boot_id, clock=time.time, socket=settings.home.site_socket
    )
    bodies = SlowBodies(time.monotonic)
    site = httpx.AsyncHTTPTransport(
        uds=str(settings.home.site_socket), limits=_SITE_CONNECTIONS
    )
    relay = Relay(
        site,
        bodies,
        max_bytes=settings.max_upload_bytes,
        idle_timeout_s=settings.upload_idle_timeout_s,
        site_timeout_s=settings.site_timeout_s,
        clock=time.time,
    )
    app = GatewayApp(
        plan=plan,
        engines=engines,
        leases=leases,
        recorder=recorder,
        metrics=metrics,
        relay=relay,
        bodies=bodies,
        body_timeout_s=settings.body_timeout_s,
    )
    operator_app = OperatorApp(
        plan=plan, engines=engines, metrics=metrics, recorder=recorder
    )

    def take_over(snapshot: Snapshot) -> None:
        tables.replace(snapshot)
        engines.replace(tables.engines)
        logger.info("snapshot_taken", sequence=snapshot.sequence)

    watcher = SnapshotWatcher(settings.home.snapshot, take_over)
    watcher.look()
    public_server = _server(app, settings)
    operator_server = _server(operator_app, settings)
    headers = SlowHeaders(time.monotonic, settings.header_timeout_s)
    beside = [
        asyncio.create_task(work)
        for work in (
            watcher.watch(),
            engines.keep_asking(),
            recorder.keep_synced(),
            bodies.keep_sweeping(),
            headers.keep_sweeping(lambda: public_server.server_state.connections),
        )
    ]
    for task in beside:
        task.add_done_callback(_stop_if_failed)
    loop = asyncio.get_running_loop()

    def stop() -> None:
        public_server.should_exit = True

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    gc.collect()
    gc.freeze()
    gc.set_threshold(_GC_THRESHOLD)
    logger.info("gateway_started", boot_id=boot_id, port=public.getsockname()[1])

    operating = asyncio.create_task(operator_server.serve(sockets=[operator]))
    await public_server.serve(sockets=[public])
    # Every answer has left; what follows is for the next process.
    operator_server.should_exit = True
    await operating
    for task in beside:
        task.cancel()
    await asyncio.gather(*beside, return_exceptions=True)
    await leases.release(tables.held())
    await leases.close()
    await site.aclose()
    await engines.close()
    recorder.close()
    logger.info("gateway_stopped", boot_id=boot_id)


def _server(app: GatewayApp | OperatorApp, settings: GatewaySettings) -> _Server:
    config = uvicorn.Config(
        app,
        loop="none",
        http=GatewayProtocol,
        ws="none",
        lifespan="off",
        interface="asgi3",
        access_log=False,
        log_config=None,
        # Whom a request is from is not for the request to say.
        proxy_headers=False,
        server_header=False,
        backlog=_BACKLOG,
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=int(settings.drain_timeout_s),
    )
    return _Server(config)


def _stop_if_failed(task: "asyncio.Task[None]") -> None:
    """Let the supervisor start a whole gateway in place of half a one."""
    if not task.cancelled() and task.exception() is not None:
        logger.error("background_task_failed", exc_info=task.exception())
        signal.raise_signal(signal.SIGTERM)
