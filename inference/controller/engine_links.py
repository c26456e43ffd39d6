"""The controller's connection to one engine.

Each link has a thread of its own: an engine that hangs delays neither the publishing
of a revoked key nor the other engines.
"""

import threading
from collections.abc import Mapping, Sequence
from typing import Protocol

import msgspec
import structlog

from inference.engine.wire.errors import EngineError
from inference.engine.wire.messages import (
    EngineStatus,
    VersionKey,
    VersionStatus,
    VersionToLoad,
)
from registry.mlflow.model_file import storable

_POLL_S = 0.5

logger = structlog.get_logger(__name__)


class ControlClient(Protocol):
    """What the controller needs of an engine's client; calls block."""

    def load(self, version: VersionToLoad) -> None: ...

    def unload(self, key: VersionKey) -> None: ...

    def status(self) -> EngineStatus: ...


class EngineView(msgspec.Struct, frozen=True):
    """An engine as its link last saw it."""

    name: str
    address: str
    # None: it does not answer, and `error` says why.
    status: EngineStatus | None
    versions: Mapping[VersionKey, VersionStatus]
    error: str = ""
    # False until the engine was asked for the first time.
    asked: bool = True

    @property
    def facts(self) -> tuple[object, ...]:
        """What is worth storing at once; the rest, like memory, always changes."""
        versions = {
            key: (
                version.state,
                version.error,
                version.load_ms,
                version.memory_bytes,
            )
            for key, version in self.versions.items()
        }
        running = self.status is not None
        return running, self.status and self.status.pid, self.error, versions


class EngineLink:
    """Queue commands for one engine and keep its last report."""

    def __init__(self, *, name: str, address: str, client: ControlClient) -> None:
        self._client = client
        self._lock = threading.Lock()
        self._commands: list[VersionToLoad | VersionKey] = []
        self._view = EngineView(
            name=name, address=address, status=None, versions={}, asked=False
        )
        self._stop = threading.Event()
        self._wake = threading.Event()
        self._thread = threading.Thread(
            target=self._run, name=f"engine-link-{name}", daemon=True
        )

    @property
    def view(self) -> EngineView:
        return self._view

    def load(self, version: VersionToLoad) -> None:
        """Load soon; from now on the view says that it is loading."""
        with self._lock:
            self._commands.append(version)
            self._view = _expecting(self._view, [version])
        self._wake.set()

    def unload(self, key: VersionKey) -> None:
        """Unload soon; from now on the view no longer counts on the version."""
        with self._lock:
            self._commands.append(key)
            self._view = _expecting(self._view, [key])
        self._wake.set()

    def poll(self) -> None:
        """Send what is queued, then ask the engine how it is."""
        with self._lock:
            commands, self._commands = self._commands, []
        view = self._view
        try:
            for command in commands:
                self._send(command)
            status = self._client.status()
        except EngineError as error:
            words = storable(error.message)
            seen = msgspec.structs.replace(
                view, status=None, versions={}, error=words, asked=True
            )
        else:
            versions = {version.key: _cleaned(version) for version in status.versions}
            seen = msgspec.structs.replace(
                view, status=status, versions=versions, error="", asked=True
            )
        with self._lock:
            # What was asked for meanwhile is not in this report yet.
            self._view = _expecting(seen, self._commands)

    def _send(self, command: VersionToLoad | VersionKey) -> None:
        try:
            if isinstance(command, VersionKey):
                self._client.unload(command)
            else:
                self._client.load(command)
        except EngineError as error:
            # Not repeated here: the next comparison asks again if it still matters.
            key = command if isinstance(command, VersionKey) else command.key
            logger.warning(
                "engine_refused_command",
                engine=self._view.name,
                version=str(key),
                command="unload" if isinstance(command, VersionKey) else "load",
                error=error.message,
            )

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._wake.set()

    def join(self, timeout_s: float) -> None:
        self._thread.join(timeout_s)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self.poll()
            except Exception:
                # The thread's boundary: one bad reply must not end the link.
                logger.exception("engine_link_failed", engine=self._view.name)
            self._wake.wait(_POLL_S)
            self._wake.clear()


def _cleaned(version: VersionStatus) -> VersionStatus:
    """Leave out of a model's own words what rows cannot hold."""
    return msgspec.structs.replace(
        version,
        error=storable(version.error),
        notes=tuple(map(storable, version.notes)),
    )


def _expected(before: VersionStatus | None, wanted: VersionToLoad) -> VersionStatus:
    """Show a version as it will be: one that answers goes on answering."""
    if before is None or before.state != "ready":
        before = VersionStatus(key=wanted.key, state="loading")
    return msgspec.structs.replace(
        before, batching=wanted.batching, pinned=wanted.pinned
    )


def _expecting(
    view: EngineView, commands: Sequence[VersionToLoad | VersionKey]
) -> EngineView:
    """Show the engine as it will be once it has heard the commands."""
    if not commands or view.status is None:
        return view
    versions = dict(view.versions)
    for command in commands:
        if isinstance(command, VersionKey):
            versions.pop(command, None)
        else:
            versions[command.key] = _expected(versions.get(command.key), command)
    return msgspec.structs.replace(view, versions=versions)
