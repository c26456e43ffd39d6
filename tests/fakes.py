"""Hand-written stand-ins for what tests do not want to run."""

from inference.engine.errors import EngineError, EngineErrorCode
from inference.engine.messages import (
    EngineStatus,
    VersionKey,
    VersionStatus,
    VersionToLoad,
)


class ManualClock:
    """Seconds that pass only when told to."""

    def __init__(self, now_s: float = 1000.0) -> None:
        self.now_s = now_s

    def __call__(self) -> float:
        return self.now_s

    def advance(self, seconds: float) -> None:
        self.now_s += seconds


class FakeControlledEngine:
    """An engine as the controller sees it: loads at once what it does not refuse."""

    def __init__(self) -> None:
        self.loaded: dict[VersionKey, VersionStatus] = {}
        # Versions that fail to load, with the reason.
        self.broken: dict[VersionKey, str] = {}
        self.commands: list[tuple[str, VersionKey]] = []
        self.reachable = True
        self.slow = False

    def load(self, version: VersionToLoad) -> None:
        self._check()
        key = version.key
        self.commands.append(("load", key))
        if key in self.broken:
            status = VersionStatus(key=key, state="failed", error=self.broken[key])
        else:
            state = "loading" if self.slow else "ready"
            status = VersionStatus(key=key, state=state, load_ms=5)
        self.loaded[key] = status

    def unload(self, key: VersionKey) -> None:
        self._check()
        self.commands.append(("unload", key))
        self.loaded.pop(key, None)

    def status(self) -> EngineStatus:
        self._check()
        return EngineStatus(
            id=0,
            device="cpu",
            pid=42,
            memory_bytes=1,
            versions=tuple(self.loaded.values()),
            counters={},
        )

    def restart_empty(self) -> None:
        self.loaded.clear()

    def finish_loading(self) -> None:
        for key in self.loaded:
            self.loaded[key] = VersionStatus(key=key, state="ready", load_ms=5)

    def _check(self) -> None:
        if not self.reachable:
            raise EngineError(EngineErrorCode.CONNECTION_LOST, "no such socket")
