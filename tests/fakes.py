"""Hand-written stand-ins for what tests do not want to run."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

from inference.engine.client import Prediction, Tensor
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


class JobClock:
    """The clock of a job's worker; sleeping takes no time but passes it."""

    def __init__(self) -> None:
        self.time = datetime(2026, 11, 20, 10, 30, tzinfo=UTC)
        self.slept: list[float] = []

    def now(self) -> datetime:
        return self.time

    def monotonic(self) -> float:
        return self.time.timestamp()

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.advance(seconds)

    def advance(self, seconds: float) -> None:
        self.time += timedelta(seconds=seconds)


class FakeJobEngine:
    """An engine that adds the columns of each row up, and fails as it is told to."""

    def __init__(self) -> None:
        # Raised by the next calls, in turn; None: that call works.
        self.failures: list[EngineErrorCode | None] = []
        # Rows whose first column is one of these make the model fail.
        self.poison: dict[float, EngineErrorCode] = {}
        self.up = True
        self.calls: list[list[float]] = []
        # Called before each prediction, for things that happen meanwhile.
        self.meanwhile: Callable[[], object] = lambda: None

    def find(self, key: VersionKey) -> "FakeJobEngine":
        return self

    def status(self) -> EngineStatus:
        if not self.up:
            raise EngineError(EngineErrorCode.CONNECTION_LOST, "no such socket")
        return EngineStatus(
            id=0, device="cpu", pid=42, memory_bytes=1, versions=(), counters={}
        )

    def predict(
        self,
        key: VersionKey,
        tensors: Sequence[Tensor],
        *,
        timeout_s: float,
        max_batch_rows: int = 0,
    ) -> Prediction:
        self.meanwhile()
        failure = self.failures.pop(0) if self.failures else None
        if failure is not None:
            raise EngineError(failure, "told to fail")
        data = tensors[0].data
        self.calls.append([float(value) for value in data[:, 0]])
        for value in data[:, 0]:
            if float(value) in self.poison:
                raise EngineError(self.poison[float(value)], "poison")
        return Prediction(
            tensors=(Tensor("output", data.sum(axis=1)),),
            queue_us=1,
            compute_us=10,
            batch_rows=len(data),
        )


class NoLeaseKeeping:
    """Stands where a thread renews a lease: tests' turns take no time."""

    def __init__(self, lease: object) -> None:
        self.notes = 0

    def note(self) -> None:
        self.notes += 1

    def __enter__(self) -> "NoLeaseKeeping":
        return self

    def __exit__(self, *error: object) -> None:
        pass
