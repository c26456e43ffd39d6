"""Connect the controller to one engine.

Each link has its own thread, so an engine that hangs delays neither the publishing of a
revoked key nor the other engines.
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
    """The client of an engine, as the controller needs it; calls block."""

    def load(self, version: VersionToLoad) -> None: ...

    def unload(self, key: VersionKey) -> None: ...

    def status(self) -> EngineStatus: ...


class EngineView(msgspec.Struct, frozen=True):
    """An engine as its link last saw it."""

    name: str
    address: str
    # None: the engine does not answer, and `error` says why.
    status: EngineStatus | None
    versions: Mapping[VersionKey, VersionStatus]
    error: str = ""
    # False until the engine was asked for the first time.
    asked: bool = True

    @property
    def facts(self) -> tuple[object, ...]:
        """The facts whose change is stored at once; others always change."""
        versions = {
            key: (
                version.state,
                version.error,
                version.load_ms,
                version.memory_bytes,
                version.apart,
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
        """Queue a load; from now on the view shows the version as loading."""
        with self._lock:
            self._commands.append(version)
            self._view = _expecting(self._view, [version])
        self._wake.set()

    def unload(self, key: VersionKey) -> None:
        """Queue an unload; from now on the view lacks the version."""
        with self._lock:
            self._commands.append(key)
            self._view = _expecting(self._view, [key])
        self._wake.set()

    def poll(self) -> None:
        """Send the queued commands, then read the engine's status."""
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
            # This report does not include commands that were queued meanwhile.
            self._view = _expecting(seen, self._commands)

    def _send(self, command: VersionToLoad | VersionKey) -> None:
        try:
            if isinstance(command, VersionKey):
                self._client.unload(command)
            else:
                self._client.load(command)
        except EngineError as error:
            # Not repeated here: the next round sends it again if it is still needed.
            key = command if isinstance(command, VersionKey) else command.key
            logger.warning(
                "engine_refused_command",
                engine=self._view.name,
                version=str(key),
                command="unload" if isinstance(command, VersionKey) else "load",
                reason=error.message,
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
                logger.exception(
                    "engine_link_failed",
                    outage=f"link to {self._view.name}",
                    engine=self._view.name,
                )
            else:
                logger.info(
                    "engine_link_works",
                    outage_over=f"link to {self._view.name}",
                    engine=self._view.name,
                )
            self._wake.wait(_POLL_S)
            self._wake.clear()


def _cleaned(version: VersionStatus) -> VersionStatus:
    """Remove characters that cannot be stored from texts that a model wrote."""
    return msgspec.structs.replace(
        version,
        error=storable(version.error),
        notes=tuple(map(storable, version.notes)),
        apart=storable(version.apart),
    )


def _expected(before: VersionStatus | None, wanted: VersionToLoad) -> VersionStatus:
    """Return a version as it will be after the command; a ready one stays ready."""
    if before is None or before.state != "ready":
        before = VersionStatus(key=wanted.key, state="loading")
    return msgspec.structs.replace(
        before, batching=wanted.batching, pinned=wanted.pinned
    )


def _expecting(
    view: EngineView, commands: Sequence[VersionToLoad | VersionKey]
) -> EngineView:
    """Return the view as it will be once the engine has received the commands."""
    if not commands or view.status is None:
        return view
    versions = dict(view.versions)
    for command in commands:
        if isinstance(command, VersionKey):
            versions.pop(command, None)
        else:
            versions[command.key] = _expected(versions.get(command.key), command)
    return msgspec.structs.replace(view, versions=versions)
