"""Be one engine process, from its settings to its exit code."""

import asyncio
import contextlib
import fcntl
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol, TextIO, cast

import msgspec
import psutil
import structlog
import uvloop

from inference.engine.devices import found, opening
from inference.engine.devices.device import DeviceOptions
from inference.engine.engine import EngineCore
from inference.engine.sandbox import sandbox
from inference.engine.sandbox.rules import SandboxRules, device_files
from inference.engine.server import EngineServer, listen
from inference.engine.settings import EngineSettings
from inference.engine.wire.notes import SharedNotes
from inference.engine.wire.orders import EngineOrder
from inference.installation.home import Home
from inference.installation.log_lines import logs

logger = structlog.get_logger()

_BEAT_S = 1.0


class HasFileno(Protocol):
    def fileno(self) -> int: ...


def run(
    settings: EngineSettings,
    order: EngineOrder | None = None,
    *,
    output: int | None = None,
) -> int:
    """Serve until SIGTERM; without an order, as the engine of the settings' device.

    `output` is the descriptor for our log; None: standard output.
    """
    settings = msgspec.structs.replace(settings, device=found.resolve(settings.device))
    if not _is_here(settings.device):
        sys.stderr.write(
            f"There is no device {settings.device} here; there is "
            f"{', '.join(found.devices())}.\n"
        )
        return os.EX_CONFIG
    if order is None:
        order = EngineOrder(
            name=settings.name,
            device=settings.device,
            host_pid=os.getppid(),
        )
    log = _configure_logging(settings, order, output)
    configure_libraries(settings)
    # Loading and explaining are Python code in threads: give the interpreter back to
    # the event loop after 1 ms instead of the usual 5.
    sys.setswitchinterval(0.001)
    home = Home(settings.root)
    home.prepare()
    # Later processes run the compiled code in this cache: only we may write there.
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(home.engine / "compiled")
    opening.configure(
        settings.device,
        DeviceOptions(
            max_batch_rows=settings.max_batch_rows,
            compile=settings.compile,
            max_graphs=settings.max_graphs,
        ),
    )
    if settings.device == "cpu":
        # Costs nothing; other devices need torch, and open with the first version.
        opening.open_device(settings.device)
    lock = _lock(home, order.name)
    if lock is None:
        sys.stderr.write(f"Another engine {order.name} runs in {home.root}.\n")
        return os.EX_CONFIG
    with lock:
        notes = SharedNotes(Path(order.notes)) if order.notes else None
        listener = listen(home.engine_socket(order.name))
        if order.walled:
            walls = _enter_sandbox(settings, order, keep=(lock, listener, log))
            if notes is not None:
                notes.walls(walls)
        code = uvloop.run(_serve(settings, order, home, listener, notes))
    logging.shutdown()
    sys.stdout.flush()
    # A model that hangs in a thread must not keep the process from ending.
    os._exit(code)


def _is_here(device: str) -> bool:
    return (
        device == "cpu"
        or device in found.devices()
        or opening.opened(device) is not None
    )


def _enter_sandbox(
    settings: EngineSettings, order: EngineOrder, *, keep: Iterable[HasFileno]
) -> dict[str, str]:
    """Reach no more than the versions need, from here on."""
    walls = sandbox.enter(
        SandboxRules(
            scratch=order.scratch,
            readable=(
                *order.readable,
                *[version.path for version in order.versions],
            ),
            devices=device_files(order.device),
            network=order.network,
            scratch_bytes=settings.max_scratch_bytes,
            keep_open=tuple(one.fileno() for one in keep),
        )
    )
    logger.info("sandboxed", **walls)
    return walls


async def _serve(
    settings: EngineSettings,
    order: EngineOrder,
    home: Home,
    listener: socket.socket,
    notes: SharedNotes | None,
) -> int:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    code = 0

    def fail() -> None:
        nonlocal code
        if code:
            return  # every batch in flight reports the same failure
        code = os.EX_SOFTWARE
        logger.error("device_failed", device=settings.device)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    engine = EngineCore(
        settings,
        on_fatal=fail,
        remembers=not order.walled,
        refused=order.refused,
        notes=notes,
    )
    path = home.engine_socket(order.name)
    server = EngineServer(engine, path, clock=time.monotonic)
    await server.start(listener)
    logger.info("listening", socket=str(path), device=settings.device, pid=os.getpid())

    def note_memory() -> None:
        if notes is not None:
            notes.empty(psutil.Process().memory_info().rss)

    if notes is not None:
        _beat(loop, notes)
    if order.walled:
        # It got its libraries from the zygote, whose memory all share.
        note_memory()
    else:
        engine.prepare(note_memory)
    engine.restore()
    for version in order.versions:
        engine.load(version)
    await stop.wait()
    logger.info("draining", unanswered=engine.batcher.unanswered)
    # Do not drain a failed device: it never answers what still waits.
    finished = await server.stop(settings.drain_s if code == 0 else 0.0)
    engine.close()
    logger.info("stopped", finished=finished)
    return code


def _beat(loop: asyncio.AbstractEventLoop, notes: SharedNotes) -> None:
    notes.beat()
    loop.call_later(_BEAT_S, _beat, loop, notes)


def _lock(home: Home, name: str) -> TextIO | None:
    """Lock this engine's name until the process ends; None if another has it."""
    file = (home.engine / f"{name}.lock").open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    return file


def configure_libraries(settings: EngineSettings) -> None:
    """Set what libraries read when they are imported, which comes later."""
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ.setdefault(name, str(settings.torch_threads))
    # Engines have no credentials and read local folders only. Without this, MLflow
    # would look for a tracking store, or create one here.
    os.environ["MLFLOW_TRACKING_URI"] = "file:///nonexistent"


def _configure_logging(
    settings: EngineSettings, order: EngineOrder, output: int | None
) -> "_Log":
    log = _Log(sys.stdout.fileno() if output is None else output)
    level = logging.getLevelNamesMapping().get(settings.log_level.upper(), logging.INFO)
    structlog.configure(
        processors=[
            _name_the_process(order),
            structlog.processors.add_log_level,
            logs.hold_back,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            logs.make_fit,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(cast(TextIO, log)),
    )
    return log


class _Log:
    """Lines of our log; one that cannot be written is lost, and harms nothing.

    The disk may be full, and a model may have closed or changed `sys.stdout`.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = os.dup(descriptor)

    def fileno(self) -> int:
        return self._descriptor

    def write(self, text: str) -> None:
        with contextlib.suppress(OSError):
            os.write(self._descriptor, text.encode("utf-8", "backslashreplace"))

    def flush(self) -> None:
        pass


def _name_the_process(order: EngineOrder) -> structlog.typing.Processor:
    # Not by context variables: callbacks from other threads would lack them.
    facts = {"process": "engine", "engine": order.name, "device": order.device}

    def processor(
        logger: structlog.typing.WrappedLogger,
        method: str,
        event: structlog.typing.EventDict,
    ) -> structlog.typing.EventDict:
        return {**event, **facts}

    return processor
