"""Run the prediction plan in Django, synchronously, with the gateway's answers.

The threads of a process share one driver. The plan is not thread-safe, so a lock is
held while a step of it runs, and released while an effect is carried out.
"""

import atexit
import functools
import itertools
import os
import threading
import time
import uuid
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any, NamedTuple, Protocol, cast

import django.db
import msgspec
import structlog
from django.conf import settings

from accounts.admission.admission import Admission
from accounts.admission.limits import LeaseGrant, LeaseRequest
from accounts.metering import spool
from accounts.metering.event import UsageEvent
from accounts.quotas import holders, leases
from inference.codecs.files.uploaded import UploadedFile
from inference.codecs.images import read_images
from inference.dialects.dialect import Call, Headers
from inference.dialects.native.event_stream import error_event
from inference.engine.clients.attempts import Attempts
from inference.engine.clients.blocking_client import BlockingEngineClient
from inference.engine.wire.calls import ExplanationCall, PredictionCall, StreamCall
from inference.engine.wire.errors import EngineError
from inference.engine.wire.messages import Explained
from inference.engine.wire.tensors import Prediction
from inference.errors import refusals
from inference.errors.api_error import ApiError
from inference.installation.home import Home
from inference.prediction.callers import rate_headers
from inference.prediction.effects import (
    Answer,
    Effect,
    EngineCall,
    ExplainCall,
    NeedBody,
    NeedUnits,
    NextChunk,
    NoChunk,
    OpenStream,
    ReadImages,
    ReadUpload,
    SendHead,
    SendPiece,
    StreamAbandoned,
)
from inference.prediction.plan import PredictionPlan, Steps
from inference.snapshot.tables import Tables
from inference.snapshot.watcher import SnapshotWatcher
from inference.uploads import files as uploaded_files

# Written events survive a power failure after this time at the latest.
_SYNC_S = 0.1

logger = structlog.get_logger(__name__)

# Reads the body, of at most this many bytes; raises ApiError.
ReadBody = Callable[[int], bytes]


class PredictingClient(Protocol):
    """An engine's client as this driver uses it: calls block and raise EngineError."""

    def predict(self, call: PredictionCall) -> Prediction: ...

    def explain(self, call: ExplanationCall) -> Explained: ...

    def stream(self, call: StreamCall) -> Generator[Any, None, None]: ...

    def close(self) -> None: ...


class Streamed(NamedTuple):
    """An answer with status 200 whose body comes in pieces."""

    headers: Headers
    pieces: Iterator[bytes]


Carried = Generator[SendHead | SendPiece, None, Answer]


class ApiDriver:
    """Carry calls out with files, sockets and the database of one installation."""

    def __init__(
        self,
        home: Home,
        *,
        make_client: Callable[[Path], PredictingClient] = BlockingEngineClient,
    ) -> None:
        self.boot_id = f"site-{uuid.uuid4().hex}"
        # Threads ask for leases at the same time, each in a transaction of its own.
        self.tables = Tables(
            make_admission=functools.partial(Admission, numbered=False)
        )
        self._home = home
        self._make_client = make_client
        self._plan = PredictionPlan(self.tables, boot_id=self.boot_id)
        self._lock = threading.Lock()
        self._clients: dict[str, PredictingClient] = {}
        # Whose engines come first: they take turns.
        self._turns = itertools.count()
        self._watcher = SnapshotWatcher(home.snapshot, self.tables)
        self._spool: spool.SpoolWriter | None = None
        self._sync_timer: threading.Timer | None = None

    def answer(self, call: Call, read_body: ReadBody) -> Answer:
        """Carry out a call and record its event; errors of callers raise nothing."""
        with self._lock:
            self._watcher.look()
        carried = self._carry_out(call, read_body)
        try:
            next(carried)
        except StopIteration as stop:
            return self._recorded(call, stop.value)
        raise AssertionError("only streams send pieces")

    def stream(self, call: Call, read_body: ReadBody) -> "Answer | Streamed":
        """Carry out a call whose answer comes in pieces, unless it is refused first.

        This occupies the thread until the last piece, and sends no keep-alive events
        while the model is silent. The gateway has neither limit.
        """
        with self._lock:
            self._watcher.look()
        carried = self._carry_out(call, read_body)
        try:
            head = next(carried)
        except StopIteration as stop:
            return self._recorded(call, stop.value)
        assert isinstance(head, SendHead), "an answer begins with its head"
        return Streamed(head.headers, self._pieces(call, carried))

    def _pieces(self, call: Call, carried: "Carried") -> Iterator[bytes]:
        try:
            while True:
                piece = next(carried)
                assert isinstance(piece, SendPiece), "there is one head"
                yield piece.data
        except StopIteration as stop:
            answer = self._recorded(call, stop.value)
            yield answer.body if answer.status == 200 else error_event(answer.body)
        finally:
            carried.close()

    def _recorded(self, call: Call, answer: Answer) -> Answer:
        if answer.event is None:
            return answer
        try:
            with self._lock:
                self._record(answer.event)
            logger.info("spool_available", outage_over="spool")
        except spool.SpoolUnavailable as error:
            logger.error("spool_unavailable", outage="spool", reason=str(error))
            with self._lock:
                return self._plan.unrecorded(call, answer)
        return answer

    def rate_headers(self, token: bytes | None) -> Headers:
        """Return the rate headers of a key; an empty list without a valid key."""
        tables = self.refresh()
        with self._lock:
            return rate_headers(tables, token, time.time())

    def refresh(self) -> Tables:
        """Read a newer snapshot if there is one, and return the tables."""
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

    def _carry_out(self, call: Call, read_body: ReadBody) -> "Carried":
        """Carry effects out, yield what has to be sent, and return the answer."""
        steps = self._plan.steps(call)
        try:
            value: Any = None
            failure: Exception | None = None
            while True:
                with self._lock:
                    effect = (
                        steps.send(value) if failure is None else steps.throw(failure)
                    )
                value = failure = None
                try:
                    if isinstance(effect, SendHead | SendPiece):
                        yield effect
                    else:
                        value = self._perform(effect, read_body)
                except (ApiError, EngineError) as error:
                    failure = error
        except GeneratorExit:
            self._abandon(call, steps)
            raise
        except StopIteration as stop:
            answer: Answer = stop.value
            return answer
        finally:
            # After an unexpected failure, the plan still has to release what the call
            # holds.
            with self._lock:
                steps.close()

    def _abandon(self, call: Call, steps: Steps) -> None:
        """Record a stream whose client left."""
        try:
            with self._lock:
                steps.throw(StreamAbandoned())
        except StopIteration as stop:
            self._recorded(call, stop.value)

    def _perform(self, effect: Effect, read_body: ReadBody) -> Any:
        match effect:
            case NeedBody():
                return read_body(effect.max_bytes)
            case ReadImages():
                return read_images(
                    effect.images,
                    max_pixels=settings.MODELYARD_MAX_IMAGE_PIXELS,
                    deadline=time.monotonic() + effect.timeout_s,
                )
            case NeedUnits():
                return self._lease(effect.request)
            case EngineCall():
                return self._ask(effect, lambda client: client.predict(effect))
            case ReadUpload():
                upload = uploaded_files.find(
                    effect.upload_id, customer_id=effect.customer_id
                )
                content = uploaded_files.read(upload, max_bytes=effect.max_bytes)
                return UploadedFile(content, upload.content_type)
            case OpenStream():
                return self._chunks(effect)
            case NextChunk():
                return next(cast(Iterator[Any], effect.stream), NoChunk.ENDED)
            case ExplainCall():
                return self._ask(effect, lambda client: client.explain(effect))

    def _lease(self, request: LeaseRequest) -> LeaseGrant:
        try:
            # The database is near, so borrow nothing ahead that others might need.
            needed = msgspec.structs.replace(request, units=request.minimum)
            grant = leases.grant(self.boot_id, needed, ask_holder=holders.ask)
        except django.db.Error as error:
            logger.warning("lease_unavailable", outage="leases", reason=error)
            raise refusals.not_leased() from error
        logger.info("leases_available", outage_over="leases")
        return grant

    def _ask(
        self, call: EngineCall | ExplainCall, ask: Callable[[PredictingClient], Any]
    ) -> Any:
        """Ask one engine after the other until one answers; raises EngineError."""
        attempts = self._attempts(call)
        for client in self._clients_of(call.engines):
            try:
                return ask(client)
            except EngineError as error:
                attempts.failed(error)
        raise attempts.failure

    def _chunks(self, call: OpenStream) -> Generator[Any, None, None]:
        """Yield the chunks of the first engine that begins; raises EngineError."""
        attempts = self._attempts(call)
        for client in self._clients_of(call.engines):
            chunks = client.stream(call)
            begun = False
            try:
                for chunk in chunks:
                    begun = True
                    yield chunk
                return
            except EngineError as error:
                attempts.failed(error, begun=begun)
            finally:
                chunks.close()
        raise attempts.failure

    def _attempts(self, call: EngineCall | ExplainCall | OpenStream) -> Attempts:
        target = self.tables.find_target(call.key)
        return Attempts(repeatable=target is None or target.repeatable)

    def _clients_of(self, engines: tuple[str, ...]) -> Iterator[PredictingClient]:
        """Yield a client of each engine, another one first each time."""
        first = next(self._turns)
        for number in range(len(engines)):
            name = engines[(first + number) % len(engines)]
            address = self.tables.engines.get(name)
            if address is not None:
                yield self._client(address)

    def _client(self, address: str) -> PredictingClient:
        with self._lock:
            client = self._clients.get(address)
            if client is None:
                for gone in self._clients.keys() - set(self.tables.engines.values()):
                    self._clients.pop(gone).close()
                client = self._clients[address] = self._make_client(Path(address))
            return client

    def _record(self, event: UsageEvent) -> None:
        if self._spool is None:
            self._spool = spool.SpoolWriter(self._home.spool, self.boot_id)
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
        except spool.SpoolUnavailable:
            logger.exception("spool_sync_failed")


def current() -> ApiDriver:
    """Return this process's driver; a forked worker gets one of its own."""
    return _of_process(settings.HOME, os.getpid())


@functools.lru_cache(maxsize=8)
def _of_process(home: Home, _pid: int) -> ApiDriver:
    return ApiDriver(home)
