"""Run one engine: `python -m inference.engine --device cpu`."""

import argparse
import asyncio
import fcntl
import logging
import os
import signal
import sys
import time
from typing import TextIO

import msgspec
import structlog
import uvloop

from inference.engine import settings as engine_settings
from inference.engine.devices import found, opening
from inference.engine.devices.device import DeviceOptions
from inference.engine.engine import EngineCore
from inference.engine.server import EngineServer
from inference.engine.settings import EngineSettings, InvalidSettings
from inference.installation.home import Home

logger = structlog.get_logger()

# Exit codes of sysexits.h: a configuration error; a failed device, so restart.
_EX_CONFIG = 78
_EX_SOFTWARE = 70


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m inference.engine", description="Run models on one device."
    )
    parser.add_argument("--device", help="cpu, cuda:0 and so on, or auto")
    arguments = parser.parse_args()
    environ = dict(os.environ)
    if arguments.device:
        environ["MODELYARD_ENGINE_DEVICE"] = arguments.device
    try:
        settings = engine_settings.from_environment(environ)
    except InvalidSettings as error:
        sys.stderr.write(f"{error}\n")
        return _EX_CONFIG
    settings = msgspec.structs.replace(settings, device=found.resolve(settings.device))
    if not _is_here(settings.device):
        sys.stderr.write(
            f"There is no device {settings.device} here; there is "
            f"{', '.join(found.devices())}.\n"
        )
        return _EX_CONFIG
    _configure_logging(settings)
    _configure_libraries(settings)
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
    lock = _lock(home, settings)
    if lock is None:
        sys.stderr.write(
            f"Another engine for device {settings.device} runs in {home.root}.\n"
        )
        return _EX_CONFIG
    with lock:
        code = uvloop.run(_serve(settings, home))
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


async def _serve(settings: EngineSettings, home: Home) -> int:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    code = 0

    def fail() -> None:
        nonlocal code
        if code:
            return  # every batch in flight reports the same failure
        code = _EX_SOFTWARE
        logger.error("device_failed", device=settings.device)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    engine = EngineCore(settings, on_fatal=fail)
    path = home.engine_socket(settings.name)
    server = EngineServer(engine, path, clock=time.monotonic)
    await server.start()
    logger.info("listening", socket=str(path), device=settings.device, pid=os.getpid())
    engine.prepare()
    engine.restore()
    await stop.wait()
    logger.info("draining", unanswered=engine.batcher.unanswered)
    # Do not drain a failed device: it never answers what still waits.
    finished = await server.stop(settings.drain_s if code == 0 else 0.0)
    engine.close()
    logger.info("stopped", finished=finished)
    return code


def _lock(home: Home, settings: EngineSettings) -> TextIO | None:
    """Lock this device until the process ends; None if another engine has it."""
    file = (home.engine / f"{settings.name}.lock").open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    return file


def _configure_libraries(settings: EngineSettings) -> None:
    # torch reads these at its first import, which comes later.
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, str(settings.torch_threads))
    # Engines have no credentials and read local folders only. Without this, MLflow
    # would look for a tracking store, or create one here.
    os.environ["MLFLOW_TRACKING_URI"] = "file:///nonexistent"
    # Loading and explaining are Python code in threads: give the interpreter back to
    # the event loop after 1 ms instead of the usual 5.
    sys.setswitchinterval(0.001)


def _configure_logging(settings: EngineSettings) -> None:
    level = logging.getLevelNamesMapping().get(settings.log_level.upper(), logging.INFO)
    structlog.configure(
        processors=[
            _name_the_process(settings),
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(),
    )


def _name_the_process(settings: EngineSettings) -> structlog.typing.Processor:
    # Not by context variables: callbacks from other threads would lack them.
    def processor(
        logger: structlog.typing.WrappedLogger,
        method: str,
        event: structlog.typing.EventDict,
    ) -> structlog.typing.EventDict:
        return {**event, "process": "engine", "device": settings.device}

    return processor


if __name__ == "__main__":
    sys.exit(main())
