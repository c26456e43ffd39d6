"""The broker of a machine that has none: a folder with one file for each message.

kombu's own file transport writes a message and its table of exchanges in place, so a
writer that is killed leaves half a file, and the worker that reads it ends. Here a file
appears whole, by rename, and one that is torn all the same (a machine that lost its
power) is dropped. There are queues only, no exchanges to share: a process declares the
queues that it sends to, and nothing of the worker's remote control is offered.
"""

import itertools
import os
import time
from pathlib import Path
from queue import Empty
from typing import Any

import structlog
from kombu.exceptions import ChannelError
from kombu.transport import virtual
from kombu.utils.json import dumps, loads

_SUFFIX = ".msg"
_PARTIAL = ".partial"
# Nobody takes so long to write a message: the writer was killed.
_LEFTOVER_S = 60.0

logger = structlog.get_logger(__name__)
_numbers = itertools.count()


class Channel(virtual.Channel):
    """Queues in `folder`, a transport option; a file is named by its queue and time."""

    def __init__(self, connection: Any, **arguments: Any) -> None:
        super().__init__(connection, **arguments)
        options = connection.client.transport_options
        self._folder = Path(options["folder"])

    def _put(self, queue: str, message: Any, **_arguments: Any) -> None:
        # Sorts by time. The process and its count make it the only one of its name.
        name = f"{time.time_ns():020}-{os.getpid()}-{next(_numbers)}"
        partial = self._folder / f"{name}{_PARTIAL}"
        try:
            partial.write_bytes(dumps(message).encode())
            partial.rename(self._folder / f"{name}.{queue}{_SUFFIX}")
        except OSError as error:
            partial.unlink(missing_ok=True)
            raise ChannelError(f"cannot add a message to {self._folder}") from error

    def _get(self, queue: str, timeout: float | None = None) -> Any:
        """Take the oldest message that nobody else takes; raises Empty."""
        for path in self._waiting(queue):
            try:
                content = path.read_bytes()
                # Of several readers one succeeds.
                path.unlink()
            except OSError:
                continue
            try:
                return loads(content)
            except ValueError:
                logger.warning("torn_message_dropped", queue=queue, bytes=len(content))
        raise Empty

    def _size(self, queue: str) -> int:
        return len(self._waiting(queue))

    def _purge(self, queue: str) -> int:
        waiting = self._waiting(queue)
        for path in waiting:
            path.unlink(missing_ok=True)
        return len(waiting)

    def _waiting(self, queue: str) -> list[Path]:
        suffix = f".{queue}{_SUFFIX}"
        try:
            names = os.listdir(self._folder)
        except OSError:
            return []
        return [self._folder / name for name in sorted(names) if name.endswith(suffix)]


class Transport(virtual.Transport):
    Channel = Channel
    driver_type = driver_name = "hint_files"

    def __init__(self, client: Any, **arguments: Any) -> None:
        super().__init__(client, **arguments)
        _remove_leftovers(Path(client.transport_options["folder"]))

    def driver_version(self) -> str:
        return ""


def _remove_leftovers(folder: Path) -> None:
    """Delete what writers that were killed had begun."""
    oldest = time.time() - _LEFTOVER_S
    for path in folder.glob(f"*{_PARTIAL}"):
        try:
            if path.stat().st_mtime < oldest:
                path.unlink()
        except OSError:
            # Another process was quicker.
            continue
