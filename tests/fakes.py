"""Stand-ins, written by hand, for services that tests do not run."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec

from inference.engine.wire.calls import PredictionCall
from inference.engine.wire.errors import EngineError, EngineErrorCode
from inference.engine.wire.messages import (
    EngineStatus,
    Priority,
    VersionKey,
    VersionStatus,
    VersionToLoad,
)
from inference.engine.wire.tensors import Prediction, Tensor
from registry.mlflow.types import (
    ArtifactRefused,
    ModelFile,
    RegistryUnreachable,
    RemoteModel,
    RemoteVersion,
    Training,
)


class ManualClock:
    """A clock that moves only when a test moves it."""

    def __init__(self, now_s: float = 1000.0) -> None:
        self.now_s = now_s

    def __call__(self) -> float:
        return self.now_s

    def advance(self, seconds: float) -> None:
        self.now_s += seconds


class FakeControlledEngine:
    """An engine as the controller sees it; it loads at once whatever it accepts."""

    def __init__(self) -> None:
        self.loaded: dict[VersionKey, VersionStatus] = {}
        # Versions that fail to load, with the reason.
        self.broken: dict[VersionKey, str] = {}
        # Of these: versions that it is useless to load again.
        self.refused: set[VersionKey] = set()
        self.commands: list[tuple[str, VersionKey]] = []
        # The last request for each version.
        self.asked: dict[VersionKey, VersionToLoad] = {}
        self.reachable = True
        self.slow = False

    def load(self, version: VersionToLoad) -> None:
        self._check()
        key = version.key
        self.commands.append(("load", key))
        self.asked[key] = version
        if key in self.broken:
            status = VersionStatus(
                key=key,
                state="failed",
                error=self.broken[key],
                refused=key in self.refused,
            )
        else:
            state = "loading" if self.slow else "ready"
            status = VersionStatus(key=key, state=state, load_ms=5)
        self.loaded[key] = msgspec.structs.replace(
            status,
            batching=version.batching,
            pinned=version.pinned,
            form=version.form(),
        )

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
            self.loaded[key] = msgspec.structs.replace(
                self.loaded[key], state="ready", load_ms=5
            )

    def _check(self) -> None:
        if not self.reachable:
            raise EngineError(EngineErrorCode.CONNECTION_LOST, "no such socket")


class JobClock:
    """The clock of a job's worker; `sleep` moves it and returns at once."""

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
    """An engine that adds the columns of each row, and fails when told to."""

    def __init__(self) -> None:
        # The next calls raise these in turn; None: that call works.
        self.failures: list[EngineErrorCode | None] = []
        # Rows whose first column is one of these make the model fail.
        self.poison: dict[float, EngineErrorCode] = {}
        self.up = True
        # Time on the device for each row.
        self.row_us = 0
        self.calls: list[list[float]] = []
        self.priorities: set[Priority] = set()
        self.customers: set[int] = set()
        self.request_ids: set[str] = set()
        self.answer: Callable[[Any], Any] = lambda data: data.sum(axis=1)
        # Called before each prediction; a test lets something happen here.
        self.meanwhile: Callable[[], object] = lambda: None

    def find(self, key: VersionKey) -> "FakeJobEngine":
        return self

    def status(self) -> EngineStatus:
        if not self.up:
            raise EngineError(EngineErrorCode.CONNECTION_LOST, "no such socket")
        return EngineStatus(
            id=0, device="cpu", pid=42, memory_bytes=1, versions=(), counters={}
        )

    def predict(self, call: PredictionCall) -> Prediction:
        self.priorities.add(call.priority)
        self.customers.add(call.customer_id)
        self.request_ids.add(call.request_id)
        self.meanwhile()
        failure = self.failures.pop(0) if self.failures else None
        if failure is not None:
            raise EngineError(failure, "told to fail")
        data = call.tensors[0].data
        self.calls.append([float(value) for value in data[:, 0]])
        for value in data[:, 0]:
            if float(value) in self.poison:
                raise EngineError(self.poison[float(value)], "poison")
        return Prediction(
            tensors=(Tensor("output", self.answer(data)),),
            queue_us=1,
            compute_us=self.row_us * len(data) or 10,
            batch_rows=len(data),
        )


class NoClaimKeeping:
    """Replace the thread that renews a claim: a turn takes no time in tests."""

    def __init__(self, claim: object) -> None:
        self.notes = 0

    def note(self) -> None:
        self.notes += 1

    def __enter__(self) -> "NoClaimKeeping":
        return self

    def __exit__(self, *error: object) -> None:
        pass


class FakeMlflow:
    """A model registry in memory: set what it knows, or make it unreachable."""

    def __init__(self) -> None:
        self.remote: dict[str, RemoteModel] = {}
        self.metrics_of: dict[tuple[str, int], dict[str, float | None]] = {}
        self.params_of: dict[tuple[str, int], dict[str, str]] = {}
        self.user = ""
        self.files: dict[tuple[str, int], ModelFile] = {}
        self.artifacts: dict[tuple[str, int], dict[str, bytes]] = {}
        self.unreachable = ""
        self.unreadable: dict[tuple[str, int], str] = {}
        self.downloads: list[tuple[str, int]] = []
        # Aliases that were moved by us.
        self.moved: list[tuple[str, str, int]] = []

    def add(
        self,
        name: str,
        *versions: int,
        aliases: dict[str, int] | None = None,
        registered_at: datetime | None = None,
        **fields: Any,
    ) -> None:
        """Register `versions` of `name` with a servable description each."""
        self.remote[name] = RemoteModel(
            name=name,
            aliases=aliases or {},
            versions=tuple(
                RemoteVersion(
                    version=number,
                    source=f"models:/m-{name}-{number}",
                    run_id=f"run-{number}",
                    status="READY",
                    registered_at=registered_at
                    or datetime(2026, 1, number, tzinfo=UTC),
                )
                for number in versions
            ),
            **fields,
        )
        for number in versions:
            self.files.setdefault(
                (name, number),
                ModelFile(
                    flavors=("pytorch",),
                    signature={"inputs": [{"type": "double", "name": "width"}]},
                    metadata={"task": "regression"},
                ),
            )
            self.artifacts.setdefault(
                (name, number), {"MLmodel": b"flavors: {}", "data/model.pt2": b"m"}
            )

    def set_alias(self, name: str, alias: str, version: int) -> None:
        self._answer()
        if version not in {known.version for known in self.remote[name].versions}:
            raise RegistryUnreachable(f"MLflow has no {name} v{version}.")
        self.moved.append((name, alias, version))
        self.point(name, alias, version)

    def point(self, name: str, alias: str, version: int | None) -> None:
        """Move an alias as a person does in MLflow; None deletes it."""
        model = self.remote[name]
        aliases = {**model.aliases, alias: version}
        kept = {alias: at for alias, at in aliases.items() if at is not None}
        self.remote[name] = replace(model, aliases=kept)

    def models(self) -> list[RemoteModel]:
        self._answer()
        return list(self.remote.values())

    def training(self, name: str, version: RemoteVersion) -> Training:
        self._answer()
        return Training(
            metrics=self.metrics_of.get((name, version.version), {}),
            params=self.params_of.get((name, version.version), {}),
            user=self.user,
        )

    def model_file(self, name: str, version: int) -> ModelFile:
        self._answer((name, version))
        return self.files[name, version]

    def download(self, name: str, version: int, *, into: Path, max_bytes: int) -> None:
        self._answer((name, version))
        self.downloads.append((name, version))
        for path, content in self.artifacts[name, version].items():
            (into / path).parent.mkdir(parents=True, exist_ok=True)
            (into / path).write_bytes(content)

    def _answer(self, version: tuple[str, int] = ("", 0)) -> None:
        if self.unreachable:
            raise RegistryUnreachable(self.unreachable)
        if version in self.unreadable:
            raise ArtifactRefused(self.unreadable[version])
