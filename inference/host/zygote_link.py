"""Start the zygote of one environment, and ask it for engine processes."""

import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import structlog

from inference.engine.wire import orders
from inference.engine.wire.messages import BASE_ENVIRONMENT
from inference.engine.wire.orders import EngineOrder

logger = structlog.get_logger(__name__)

# Folder that holds the package `inference`.
_SOURCE = Path(__file__).resolve().parents[2]


class ZygoteLink:
    """One zygote, and the orders that it has not answered yet."""

    def __init__(self, environment: str, folder: str, *, log: Path | None) -> None:
        """Start it: of this Python, or of an environment in `folder`.

        Without a `log` it writes where this process does. Raises OSError if there is
        no Python.
        """
        self.environment = environment
        # It has imported all libraries; it works once it has forked, which is sooner.
        self.ready = self.works = False
        # Whether it was stopped (SIGSTOP) when it was last looked at.
        self.stopped = False
        self.waiting: list[str] = []
        self._link, child = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._link.setblocking(False)
        with child, contextlib.ExitStack() as files:
            output = files.enter_context(log.open("ab")) if log is not None else None
            self.process = subprocess.Popen(
                (
                    _python(environment, folder),
                    "-m",
                    "inference.engine.zygote",
                    "--socket",
                    str(child.fileno()),
                ),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=_SOURCE,
                env=_environ(environment),
                pass_fds=(child.fileno(),),
                start_new_session=True,
            )
        logger.info("zygote_started", environment=environment, pid=self.process.pid)

    def fileno(self) -> int:
        return self._link.fileno()

    def ask(self, order: EngineOrder) -> bool:
        """Send an order; return whether it could be sent."""
        try:
            orders.send_order(self._link, order)
        except OSError:
            return False
        self.waiting.append(order.name)
        return True

    def replies(self) -> list[Any]:
        """Return the replies that have come."""
        found: list[Any] = []
        while True:
            try:
                data = self._link.recv(65_536)
            except (BlockingIOError, ConnectionError):
                return found
            if not data:
                return found
            reply = orders.decode_reply(data)
            if isinstance(reply, orders.Imported):
                self.ready = self.works = True
                logger.info(
                    "zygote_ready",
                    environment=self.environment,
                    imported_in_ms=reply.milliseconds,
                    memory_bytes=reply.memory_bytes,
                )
            else:
                with contextlib.suppress(ValueError):
                    self.waiting.remove(reply.name)
                self.works = self.works or isinstance(reply, orders.Forked)
                found.append(reply)

    def close(self) -> None:
        """Let it end; the engines that it forked stay."""
        self._link.close()
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()


def _python(environment: str, folder: str) -> str:
    if environment == BASE_ENVIRONMENT:
        return sys.executable
    return str(Path(folder, "bin", "python"))


def _environ(environment: str) -> Mapping[str, str]:
    if environment == BASE_ENVIRONMENT:
        return os.environ
    # Nothing of this Python may be imported there, except for our own code.
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PYTHON", "VIRTUAL_ENV"))
    }
    return kept | {"PYTHONPATH": str(_SOURCE), "PYTHONUNBUFFERED": "1"}
