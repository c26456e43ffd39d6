"""Build a gateway from its settings, serve its ports on one event loop, and drain."""

import asyncio
import functools
import gc
import os
import secrets
import signal
import socket
import sys
import time
from typing import TYPE_CHECKING

import httpx
import structlog

from accounts.admission.admission import Admission
from accounts.admission.back_off import BackOffs
from accounts.admission.networks import Networks
from accounts.admission.shared_counts import SharedCounts
from accounts.metering.spool import SpoolUnavailable, SpoolWriter
from inference.dialects.native.native import NATIVE
from inference.dialects.open_inference.over_http import OPEN_INFERENCE
from inference.engine.clients.socket_client import SocketEngineClient
from inference.gateway.app import GatewayApp
from inference.gateway.bounds import Bytes, UploadSlots
from inference.gateway.driver.call_log import CallLog
from inference.gateway.driver.driver import MAX_LARGE_BYTES, GatewayDriver
from inference.gateway.driver.engines import Engines
from inference.gateway.driver.lease_client import LeaseClient
from inference.gateway.driver.recorder import Recorder
from inference.gateway.driver.upload_reader import InputFiles
from inference.gateway.http1.asgi import answered_by
from inference.gateway.http1.listener import Application, Listener
from inference.gateway.metrics.calls import Metrics
from inference.gateway.metrics.processes import ALWAYS, site_names
from inference.gateway.operators.app import ControlApp, OperatorApp, Reporter
from inference.gateway.operators.siblings import Siblings
from inference.gateway.relay.buffers import Buffers
from inference.gateway.relay.clients import Clients, SlowBodies
from inference.gateway.relay.relay import Relay
from inference.gateway.settings import SITE_THREADS, GatewaySettings, gateway_names
from inference.installation import modes
from inference.installation.preparing import prepare_or_exit
from inference.installation.sockets import bind_control, http_over
from inference.prediction.cache import PredictionCache
from inference.prediction.plan import PredictionPlan
from inference.prediction.streamed_plan import StreamLimits
from inference.snapshot.contents import Delta
from inference.snapshot.tables import Tables
from inference.snapshot.watcher import SnapshotWatcher

if TYPE_CHECKING:
    from inference.gateway.grpc.server import GrpcServer

logger = structlog.get_logger(__name__)

_KEEP_ALIVE_S = 30.0
_OPERATORS_DRAIN_S = 1.0
# Idle connections to the site close before its server closes them, after 2 s.
_SITE_CONNECTIONS = httpx.Limits(
    max_connections=100, max_keepalive_connections=20, keepalive_expiry=1.0
)
# Collect the youngest generation rarely: requests make little garbage in cycles, and
# each collection slows the slowest answers down further.
_GC_THRESHOLD = 20_000


async def serve(
    settings: GatewaySettings, public: socket.socket, operator: socket.socket
) -> None:
    """Serve both sockets until SIGTERM or SIGINT, then drain."""
    prepare_or_exit(settings.home, os.environ)
    boot_id = secrets.token_hex(8)
    counts = SharedCounts(
        settings.home.shared_counts,
        process=gateway_names(settings.gateways).index(settings.name)
        if settings.gateways > 1
        else 0,
        processes=settings.gateways,
    )
    leases = LeaseClient(
        holder=boot_id, clock=time.time, socket=settings.home.internal_socket
    )
    tables = Tables(
        make_admission=functools.partial(
            Admission,
            # One gateway keeps rates in its own memory.
            shared=counts if settings.gateways > 1 else None,
            overdraft=counts,
            overdraft_share=settings.overdraft_percent / 100,
            prefetch=leases.prefetch,
        ),
        back_offs=BackOffs(counts),
    )
    trusted_proxies = Networks(settings.trusted_proxies)
    plan = PredictionPlan(
        tables,
        trusted_proxies=trusted_proxies,
        boot_id=boot_id,
        max_body_bytes=settings.max_body_bytes,
        max_timeout_s=settings.max_timeout_s,
        streams=StreamLimits(settings.max_streams, settings.max_stream_s),
        predictions=PredictionCache(
            max_entries=settings.cache_max_entries,
            max_bytes=settings.cache_max_bytes,
        ),
    )
    engines = Engines(SocketEngineClient, tables)
    try:
        writer = SpoolWriter(
            settings.home.spool,
            boot_id,
            max_total_bytes=settings.spool_max_bytes,
            # The controller reads and deletes what gateways wrote.
            file_mode=modes.of_files(settings.home.spool),
        )
    except SpoolUnavailable as error:
        sys.exit(f"The gateway cannot write to {settings.home.spool}: {error}.")
    recorder = Recorder(writer)
    metrics = Metrics()
    metrics.cache = plan.cache.counts
    metrics.lease_failures = leases.failures
    bodies = SlowBodies(time.monotonic)
    site = http_over(settings.home.site_socket, _SITE_CONNECTIONS)
    # Each gateway has its part, so a client that asks several of them gets no more.
    buffers = Buffers(
        settings.home.relayed, Bytes(settings.max_relayed_bytes // settings.gateways)
    )
    site_threads = SITE_THREADS * settings.site_workers
    relay = Relay(
        site,
        bodies,
        clients=Clients(tables, trusted_proxies, time.time),
        buffers=buffers,
        turns=UploadSlots(max(2, site_threads // settings.gateways)),
        trusted_proxies=trusted_proxies,
        max_bytes=settings.max_upload_bytes,
        idle_timeout_s=settings.upload_idle_timeout_s,
        site_timeout_s=settings.site_timeout_s,
        upload_timeout_s=settings.site_upload_timeout_s,
        min_bytes_per_s=settings.upload_min_bytes_per_s,
        clock=time.time,
    )
    files = InputFiles(
        socket=settings.home.internal_socket, at_once=max(1, 8 // settings.gateways)
    )
    driver = GatewayDriver(
        plan=plan,
        engines=engines,
        leases=leases,
        recorder=recorder,
        metrics=metrics,
        files=files,
        body_timeout_s=settings.body_timeout_s,
        calls=CallLog(settings.log_calls, trusted_proxies=trusted_proxies)
        if settings.log_calls
        else None,
        examples=settings.home.shadow_examples,
        max_image_pixels=settings.max_image_pixels,
        # Two of the largest bodies must find room, even if one customer sends both.
        max_large_bytes=max(
            MAX_LARGE_BYTES,
            4 * max(settings.max_body_bytes, settings.max_binary_body_bytes),
        ),
    )
    app = GatewayApp(driver, relay)
    OPEN_INFERENCE.max_json_bytes = settings.max_body_bytes
    OPEN_INFERENCE.max_binary_body_bytes = settings.max_binary_body_bytes
    NATIVE.max_binary_body_bytes = settings.max_binary_body_bytes
    grpc_server = _grpc_server(driver, settings) if settings.grpc_port else None
    public_listener = _listener(app.read, settings, trusted_proxies)
    metrics.cut_off = lambda: public_listener.cut_off
    metrics.bounds |= {
        "http_connections": public_listener.places,
        "relayed_bytes": relay.buffers.held,
        "waiting_for_the_site": relay.turns,
    }
    reporter = Reporter(
        plan=plan,
        engines=engines,
        metrics=metrics,
        recorder=recorder,
        leases=leases,
        name=settings.name,
        boot_id=boot_id,
        home=settings.home,
        certificate_ends=lambda: (
            grpc_server.certificates.not_after
            if grpc_server is not None and grpc_server.certificates is not None
            else None
        ),
        forwarders=relay.forwarders,
    )
    names = gateway_names(settings.gateways)
    siblings = Siblings(settings.home.run, own_name=settings.name, names=names)
    operator_app = OperatorApp(
        reporter,
        siblings=siblings,
        names=names,
        home=settings.home,
        others=(*ALWAYS, *site_names(settings.site_workers)),
    )
    control_socket = settings.home.gateway_socket(settings.name, boot_id)

    def follow(delta: Delta) -> None:
        if delta.base == 0 or delta.engines is not None:
            engines.replace(tables.engines)

    watcher = SnapshotWatcher(settings.home.snapshot, tables, on_change=follow)
    watcher.look()
    operator_listener = _listener(answered_by(operator_app), settings)
    control_listener = _listener(answered_by(ControlApp(reporter, tables)), settings)
    beside = [
        asyncio.create_task(work)
        for work in (
            watcher.watch(),
            engines.keep_asking(),
            recorder.keep_synced(),
            bodies.keep_sweeping(),
        )
    ]
    for task in beside:
        task.add_done_callback(_stop_if_failed)
    loop = asyncio.get_running_loop()

    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    gc.collect()
    gc.freeze()
    gc.set_threshold(_GC_THRESHOLD)
    logger.info("gateway_started", boot_id=boot_id, port=public.getsockname()[1])

    await operator_listener.listen(operator)
    await control_listener.listen(bind_control(control_socket))
    await public_listener.listen(public)
    if grpc_server is not None:
        await grpc_server.start()
    await stop.wait()
    draining = [public_listener.drain(settings.drain_timeout_s)]
    if grpc_server is not None:
        draining.append(grpc_server.stop(settings.drain_timeout_s))
    await asyncio.gather(*draining)
    # All answers have left. What follows leaves things in order for the next process.
    await operator_listener.drain(_OPERATORS_DRAIN_S)
    await control_listener.drain(_OPERATORS_DRAIN_S)
    control_socket.unlink(missing_ok=True)
    for task in beside:
        task.cancel()
    await asyncio.gather(*beside, return_exceptions=True)
    await leases.release(tables.admissions.release())
    await leases.close()
    await site.aclose()
    buffers.close()
    await files.close()
    await engines.close()
    driver.shadows.flush()
    recorder.close()
    logger.info("gateway_stopped", boot_id=boot_id)


def _listener(
    application: Application,
    settings: GatewaySettings,
    trusted_proxies: Networks = Networks(()),  # noqa: B008  # It never changes.
) -> Listener:
    return Listener(
        application,
        header_timeout_s=settings.header_timeout_s,
        idle_timeout_s=_KEEP_ALIVE_S,
        max_connections=settings.max_connections,
        trusted_proxies=trusted_proxies,
    )


def _grpc_server(driver: GatewayDriver, settings: GatewaySettings) -> "GrpcServer":
    # Imported here, so that a process without gRPC does not load protobuf.
    from inference.gateway.grpc.server import GrpcServer, GrpcSettings

    try:
        return GrpcServer(
            driver,
            GrpcSettings(
                host=settings.host,
                port=settings.grpc_port,
                max_message_bytes=settings.max_binary_body_bytes,
                shared=True,
                certificate=settings.grpc_certificate,
                key=settings.grpc_key,
                client_ca=settings.grpc_client_ca,
                max_connections=settings.max_connections,
                message_timeout_s=settings.body_timeout_s,
            ),
        )
    except OSError as error:
        sys.exit(f"The gateway {error}.")


def _stop_if_failed(task: "asyncio.Task[None]") -> None:
    """Stop the gateway if a background task failed; the supervisor starts a new one."""
    if not task.cancelled() and task.exception() is not None:
        logger.error("background_task_failed", exc_info=task.exception())
        signal.raise_signal(signal.SIGTERM)
