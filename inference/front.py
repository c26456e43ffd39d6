"""The prediction plan in Django: the same answers as the gateway's, synchronously.

One Front per process, shared by its threads. The plan itself keeps counts and is not
made for threads, so a lock is held while it thinks and let go of while it waits.
"""

import atexit
import functools
import os
import threading
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import django.db
import structlog
from django.conf import settings

from accounts import leases
from accounts.limits import LeaseGrant, LeaseRequest
from accounts.usage_event import UsageEvent
from inference import refusals, spool
from inference.engine.client import BlockingEngineClient, Prediction, Tensor
from inference.engine.errors import EngineError, EngineErrorCode
from inference.engine.messages import Explained, ExplainOptions, VersionKey
from inference.errors import ApiError
from inference.gateway.snapshots import SnapshotWatcher
from inference.home import Home
from inference.prediction import (
    Answer,
    Call,
    Effect,
    EngineCall,
    ExplainCall,
    NeedBody,
    NeedUnits,
    PredictionPlan,
)
from inference.tables import Tables

# How long written events may wait until they survive a power failure.
_SYNC_S = 0.1
# Another engine may answer what this one cannot; nothing was computed yet.
_ELSEWHERE = frozenset(
    {
        EngineErrorCode.NOT_LOADED,
        EngineErrorCode.LOADING,
        EngineErrorCode.CONNECTION_LOST,
        EngineErrorCode.DRAINING,
        EngineErrorCode.OVERLOADED,
    }
)

logger = structlog.get_logger(__name__)

# Reads the body, at most so many bytes; raises ApiError.
ReadBody = Callable[[int], bytes]


class PredictingClient(Protocol):
    """What a front needs of an engine's client; calls block and raise EngineError."""

    def predict(
        self,
        key: VersionKey,
        tensors: tuple[Tensor, ...],
        *,
        timeout_s: float,
        max_batch_rows: int = 0,
    ) -> Prediction: ...

    def explain(
        self,
        key: VersionKey,
        tensors: tuple[Tensor, ...],
        *,
        options: ExplainOptions,
        timeout_s: float,
    ) -> Explained: ...

    def close(self) -> None: ...


class Front:
    """Carries calls out with files, sockets and the database of one installation."""

    def __init__(
        self,
        home: Home,
        *,
        make_client: Callable[[Path], PredictingClient] = BlockingEngineClient,
    ) -> None:
        self.boot_id = f"site-{uuid.uuid4().hex}"
        self.tables = Tables()
        self._home = home
        self._make_client = make_client
        self._plan = PredictionPlan(self.tables, boot_id=self.boot_id)
        self._lock = threading.Lock()
        self._clients: dict[str, PredictingClient] = {}
        self._watcher = SnapshotWatcher(home.snapshot, self.tables.replace)
        self._spool: spool.SpoolWriter | None = None
        self._sync_timer: threading.Timer | None = None

    def answer(self, call: Call, read_body: ReadBody) -> Answer:
        """Carry one call out and record it; never raises for what callers may cause."""
        with self._lock:
            self._watcher.look()
        answer = self._drive(call, read_body)
        if answer.event is None:
            return answer
        try:
            with self._lock:
                self._record(answer.event)
        except spool.SpoolUnavailable as error:
            logger.error("spool_unavailable", error=str(error))
            with self._lock:
                return self._plan.unrecorded(answer)
        return answer

    def refresh(self) -> Tables:
        """Take over a newer snapshot if there is one."""
        with self._lock:
            self._watcher.look()
        return self.tables

    def close(self) -> None:
        """Complete the spool segment, so that it is read and leases are settled."""
        with self._lock:
            if self._sync_timer is not None:
                self._sync_timer.cancel()
            if self._spool is not None:
                self._spool.close()
                self._spool = None
            clients, self._clients = self._clients, {}
        for client in clients.values():
            client.close()

    def _drive(self, call: Call, read_body: ReadBody) -> Answer:
        steps = self._plan.steps(call)
        try:
            value: Any = None
            failure: ApiError | EngineError | None = None
            while True:
                with self._lock:
                    effect = (
                        steps.send(value) if failure is None else steps.throw(failure)
                    )
                value = failure = None
                try:
                    value = self._perform(effect, read_body)
                except (ApiError, EngineError) as error:
                    failure = error
        except StopIteration as stop:
            answer: Answer = stop.value
            return answer
        finally:
            # When an effect fails in a way that the plan does not know, it still has
            # to give back what the call holds.
            with self._lock:
                steps.close()

    def _perform(self, effect: Effect, read_body: ReadBody) -> Any:
        match effect:
            case NeedBody():
                return read_body(effect.max_bytes)
            case NeedUnits():
                return self._lease(effect.request)
            case EngineCall():
                return self._on_engine(
                    effect.engines,
                    lambda client: client.predict(
                        effect.key,
                        effect.tensors,
                        timeout_s=effect.timeout_s,
                        max_batch_rows=effect.max_batch_rows,
                    ),
                )
            case ExplainCall():
                return self._on_engine(
                    effect.engines,
                    lambda client: client.explain(
                        effect.key,
                        effect.tensors,
                        options=effect.options,
                        timeout_s=effect.timeout_s,
                    ),
                )

    def _lease(self, request: LeaseRequest) -> LeaseGrant:
        try:
            return leases.grant(self.boot_id, request)
        except django.db.Error as error:
            logger.warning("lease_unavailable", error=type(error).__name__)
            raise refusals.not_leased() from error

    def _on_engine(
        self, engines: tuple[str, ...], call: Callable[[PredictingClient], Any]
    ) -> Any:
        """Ask the first engine that is there; predictions may be asked for twice."""
        failure = EngineError(EngineErrorCode.CONNECTION_LOST, "no engine is known")
        for name in engines:
            address = self.tables.engines.get(name)
            if address is None:
                continue
            try:
                return call(self._client(address))
            except EngineError as error:
                if error.code not in _ELSEWHERE:
                    raise
                failure = error
        raise failure

    def _client(self, address: str) -> PredictingClient:
        with self._lock:
            client = self._clients.get(address)
            if client is None:
                client = self._clients[address] = self._make_client(Path(address))
            return client

    def _record(self, event: UsageEvent) -> None:
        if self._spool is None:
            try:
                self._spool = spool.SpoolWriter(self._home.spool, self.boot_id)
            except OSError as error:
                raise spool.SpoolUnavailable(os.strerror(error.errno or 0)) from error
            atexit.register(self.close)
        self._spool.append([event])
        if self._sync_timer is None:
            self._sync_timer = threading.Timer(_SYNC_S, self._sync)
            self._sync_timer.daemon = True
            self._sync_timer.start()

    def _sync(self) -> None:
        with self._lock:
            self._sync_timer = None
            writer = self._spool
            if writer is None:
                return
            writer.measure()
        try:
            # Without the lock: a slow disk must not hold up other threads.
            writer.sync()
        except OSError:
            logger.exception("spool_sync_failed")


def current() -> Front:
    """Return this process's front; a forked worker gets one of its own."""
    return _front(settings.HOME, os.getpid())


@functools.lru_cache(maxsize=8)
def _front(home: Home, _pid: int) -> Front:
    return Front(home)
