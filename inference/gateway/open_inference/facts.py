"""Find what the Open Inference Protocol reports of a server and its models.

HTTP and gRPC answer from it. Anybody may ask about the server; only a caller whose key
may call a model may ask about it.
"""

import time
from collections.abc import Callable
from functools import cache
from importlib import metadata

import msgspec

from accounts.admission.limits import ReachedLimit
from inference.dialects import dialect
from inference.dialects.call_headers import Head
from inference.dialects.open_inference import datatypes as data
from inference.dialects.open_inference.inputs import input_binding
from inference.engine.wire.messages import VersionKey
from inference.errors.api_error import ApiError, ErrorCode
from inference.errors.refusals import (
    NO_MODEL,
    broken,
    lacks_scope,
    not_served_because,
    of_limits,
)
from inference.gateway.driver.engines import Engines
from inference.gateway.driver.health import Health
from inference.prediction.callers import find_caller, rate_headers, require_network
from inference.prediction.plan import PredictionPlan
from inference.snapshot.keys import KeyEntry
from inference.snapshot.targets import ModelEntry, Target, ending_headers

EXTENSIONS = ("binary_tensor_data", "classification", "model_repository(index)")
_PLATFORM = "modelyard_engine"
_READING = frozenset({"predict", "models:read"})


class ServerFacts(msgspec.Struct, frozen=True):
    name: str
    version: str
    extensions: tuple[str, ...]


class TensorFacts(msgspec.Struct, frozen=True):
    name: str
    datatype: str
    # -1 is a dimension of any size.
    shape: tuple[int, ...]


class ModelFacts(msgspec.Struct, frozen=True):
    name: str
    versions: tuple[str, ...]
    platform: str
    inputs: tuple[TensorFacts, ...]
    # As the engine found them when it loaded the model; none before.
    outputs: tuple[TensorFacts, ...]


class IndexEntry(msgspec.Struct, frozen=True):
    name: str
    version: str
    state: str
    reason: str = ""


class OpenInferenceFacts:
    """Answer from the snapshot and the last reports of engines.

    Questions about models count against a key's rates, like predictions, but not
    against its quotas.
    """

    def __init__(
        self,
        plan: PredictionPlan,
        engines: Engines,
        health: Health,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._plan = plan
        self._engines = engines
        self._health = health
        self._clock = clock

    def server(self) -> ServerFacts:
        return ServerFacts("modelyard", _own_version(), EXTENSIONS)

    def server_ready(self) -> bool:
        return self._health.ready

    def caller(self, head: Head, peer: str, now: float) -> KeyEntry:
        """Find the caller's key and check its network; raises ApiError."""
        entry = find_caller(self._plan.tables, head.token, now)
        require_network(entry, peer, head.forwarded_for, self._plan.trusted_proxies)
        return entry

    def rate_headers(
        self, head: Head, now: float, limit: ReachedLimit | None = None
    ) -> dialect.Headers:
        """Return the rate headers of the key in `head`; none without a valid key."""
        return rate_headers(self._plan.tables, head.token, now, limit)

    def headers(self, name: str, version: str | None) -> dialect.Headers:
        """Return the headers that tell the end of a version that was described."""
        entry = self._plan.tables.models[name]
        if version is None:
            return [*entry.headers]
        ending = self._target(entry, version).ending
        return [] if ending is None else [*ending_headers(name, ending)]

    def model(self, caller: KeyEntry, name: str, version: str | None) -> ModelFacts:
        """Describe a version, or the model's default; raises ApiError."""
        self._admit(caller)
        entry = self._find(caller, name)
        target = self._target(entry, version)
        inputs = target.compiled(input_binding).expected
        return ModelFacts(
            name=name,
            versions=tuple(str(found.version) for found in entry.model.versions),
            platform=_PLATFORM,
            inputs=tuple(
                TensorFacts(given.name, given.datatype, given.wire_shape)
                for given in inputs
            ),
            outputs=tuple(
                TensorFacts(
                    given.name,
                    data.datatype_of(given.dtype) or data.BYTES,
                    (-1, *given.shape),
                )
                for given in self._engines.outputs(target.key, on=target.engines)
            ),
        )

    def model_ready(self, caller: KeyEntry, name: str, version: str | None) -> bool:
        """Return whether a prediction would be answered now; raises ApiError."""
        self._admit(caller)
        return self.answers(caller, name, version)

    def answers(self, caller: KeyEntry, name: str, version: str | None) -> bool:
        """Return the same without counting against the rates; raises ApiError."""
        entry = self._find(caller, name)
        if version is None and not entry.model.variants:
            return False
        target = self._target(entry, version)
        return self._engines.is_ready(target.key, on=target.engines)

    def index(self, caller: KeyEntry, *, ready_only: bool = False) -> list[IndexEntry]:
        """List the versions that the key may call; raises ApiError."""
        self._admit(caller)
        found = []
        for name, entry in self._plan.tables.models.items():
            if caller.models is not None and name not in caller.models:
                continue
            for version in entry.model.versions:
                key = VersionKey(name, version.version)
                if self._engines.is_ready(key, on=version.engines):
                    found.append(IndexEntry(name, str(version.version), "READY"))
                elif not ready_only:
                    found.append(
                        IndexEntry(
                            name,
                            str(version.version),
                            "UNAVAILABLE",
                            "it is ready on no engine",
                        )
                    )
        return found

    def _admit(self, caller: KeyEntry) -> None:
        if _READING.isdisjoint(caller.scopes):
            raise lacks_scope("models:read")
        refusal = caller.enter(self._clock())
        if refusal is not None:
            raise of_limits(refusal)
        caller.admission.leave()

    def _find(self, caller: KeyEntry, name: str) -> ModelEntry:
        entry = self._plan.tables.models.get(name)
        if entry is None or (caller.models is not None and name not in caller.models):
            raise ApiError(ErrorCode.NOT_FOUND, NO_MODEL)
        return entry

    def _target(self, entry: ModelEntry, version: str | None) -> Target:
        """Find a version; if None, the default or else the newest; raises ApiError."""
        if version is None:
            default = next(
                (v.version for v in entry.model.variants if v.role == "default"), None
            )
            versions = [found.version for found in entry.model.versions]
            number = default if default is not None else max(versions, default=None)
            version = str(number)
        target = entry.named(version)
        if target is None and entry.model.stuck:
            raise not_served_because(entry.model.stuck)
        if target is None and version in entry.model.broken:
            raise broken()
        if target is None:
            raise ApiError(ErrorCode.NOT_FOUND, NO_MODEL)
        return target


@cache
def _own_version() -> str:
    return metadata.version("modelyard")
