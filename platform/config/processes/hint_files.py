"""A Celery broker in a folder with one file per message, for machines without a broker.

kombu's own file transport writes in place: a writer that is killed leaves half a file,
which stops the worker that reads it. Here a file appears by a rename, and a file that
is torn nevertheless, by a power cut, is dropped. There are only queues, no shared
exchanges, and the worker's remote control does not work.
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
# Writing a message never takes this long: the writer was killed.
_LEFTOVER_S = 60.0

logger = structlog.get_logger(__name__)
_numbers = itertools.count()


class Channel(virtual.Channel):
    """Queues in the transport option `folder`; file names hold time and queue."""

    def __init__(self, connection: Any, **arguments: Any) -> None:
        super().__init__(connection, **arguments)
        options = connection.client.transport_options
        self._folder = Path(options["folder"])

    def _put(self, queue: str, message: Any, **_arguments: Any) -> None:
        # Sorts by time; the process id and a counter make the name unique.
        name = f"{time.time_ns():020}-{os.getpid()}-{next(_numbers)}"
        partial = self._folder / f"{name}{_PARTIAL}"
        try:
            partial.write_bytes(dumps(message).encode())
            partial.rename(self._folder / f"{name}.{queue}{_SUFFIX}")
        except OSError as error:
            partial.unlink(missing_ok=True)
            raise ChannelError(f"cannot add a message to {self._folder}") from error

    def _get(self, queue: str, timeout: float | None = None) -> Any:
        """Take the oldest message that no other reader takes; raise Empty."""
        for path in self._waiting(queue):
            try:
                content = path.read_bytes()
                # If several readers try this, one succeeds.
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
    """Delete partial files of writers that were killed."""
    oldest = time.time() - _LEFTOVER_S
    for path in folder.glob(f"*{_PARTIAL}"):
        try:
            if path.stat().st_mtime < oldest:
                path.unlink()
        except OSError:
            # Another process deleted it first.
            continue
