"""The engine itself: load versions, answer requests, report status, drain."""

import asyncio
import os
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future

import psutil

from inference.engine.batching import bounds
from inference.engine.batching.batcher import Batcher
from inference.engine.batching.entry import Entry
from inference.engine.batching.notes import PieceNotes
from inference.engine.devices import failures, opening
from inference.engine.explaining.plugins import ExplainTask, ExplainThread
from inference.engine.loading.memory import ModelMemory
from inference.engine.loading.versions import Loader, Versions, VersionState
from inference.engine.runners import runner
from inference.engine.settings import EngineSettings
from inference.engine.signatures import checks
from inference.engine.streaming import RunningStream, StreamReader, Streams
from inference.engine.wire.errors import EngineError, EngineErrorCode
from inference.engine.wire.messages import (
    DeviceStatus,
    EngineStatus,
    ExplainOptions,
    Params,
    Priority,
    VersionKey,
    VersionToLoad,
)
from inference.engine.wire.tensors import Tensor
from inference.metrics import own_use

_MAX_LAYOUTS = 64
_DRAINING_RETRY_MS = 1000


class EngineCore:
    """One engine; use it only on the event loop that it was made on."""

    def __init__(
        self,
        settings: EngineSettings,
        *,
        load: Loader = runner.load,
        clock: Callable[[], float] = time.monotonic,
        on_fatal: Callable[[], None] = lambda: None,
        device_memory: ModelMemory | None = None,
        remembers: bool = True,
        refused: Iterable[VersionKey] = (),
        notes: PieceNotes | None = None,
    ) -> None:
        """Make an engine; it never loads the `refused` versions.

        `remembers`: it keeps the list of its versions on disk, to restart alone.
        """
        self.settings = settings
        self.clock = clock
        self._on_fatal = on_fatal
        self._loop = asyncio.get_running_loop()
        self.batcher = Batcher(
            bounds.of_engine(settings),
            loop=self._loop,
            clock=clock,
            on_fatal=on_fatal,
            notes=notes,
        )
        self.versions = Versions(
            settings,
            self.batcher,
            load=load,
            clock=clock,
            loop=self._loop,
            on_ready=self._warm_plugins,
            on_fatal=on_fatal,
            device_memory=device_memory,
            remembers=remembers,
            refused=frozenset(refused),
            notes=notes,
        )
        self._explain_thread = ExplainThread(
            settings.plugins, max_waiting=settings.max_explain_queue, clock=clock
        )
        self._explaining: set[Future[object]] = set()
        self.streams = Streams(settings.max_streams, loop=self._loop)
        self.draining = False
        self.counters = {"malformed_frames": 0, "connections": 0, "explanations": 0}

    # Versions

    def prepare(self, done: Callable[[], None] = lambda: None) -> None:
        """Import the libraries in the background, then call `done` and load."""
        self.versions.prepare(done)

    def restore(self) -> None:
        """Load the versions that an earlier process was asked to load."""
        self.versions.restore()

    def load(self, wanted: VersionToLoad) -> None:
        """Begin to load a version; the same request again changes nothing."""
        self.versions.load(wanted)

    def unload(self, key: VersionKey) -> None:
        """Forget a version and free its memory; do nothing if it is unknown."""
        self.versions.unload(key)

    def _warm_plugins(self) -> None:
        """Import explainers after all loading, which needs the processor too."""
        if self.settings.warm_plugins and not self.versions.loading:
            self._explain_thread.warm_up()

    # Requests

    def submit(self, key: VersionKey, entry: Entry) -> None:
        """Queue a prediction; raise EngineError if it cannot be accepted."""
        version = self._ready(key)
        if version.lengths is not None:
            version.lengths.admit(entry)
        elif entry.layout not in version.layouts:
            self._admit_layout(version, entry)
        assert version.lane is not None
        self.batcher.submit(version.lane, entry)

    def cancel(self, entry: Entry) -> None:
        self.batcher.cancel(entry)

    def explain(
        self,
        key: VersionKey,
        tensors: tuple[Tensor, ...],
        options: ExplainOptions,
        *,
        timeout_s: float,
        priority: Priority = "interactive",
        customer_id: int = 0,
        request_id: str = "",
    ) -> ExplainTask:
        """Queue an explanation; raise EngineError if it cannot be accepted."""
        version = self._ready(key)
        assert version.signature is not None
        assert version.model is not None
        checks.check_layout(version.signature, tensors)
        deadline = self.clock() + timeout_s
        task = ExplainTask(
            version.model.until(
                deadline,
                self.clock,
                job=priority == "job",
                customer_id=customer_id,
                request_id=request_id,
            ),
            tensors,
            options,
            deadline=deadline,
            customer_id=customer_id,
            request_id=request_id,
            clock=self.clock,
        )
        self._explain_thread.submit(task)
        self.counters["explanations"] += 1
        self._explaining.add(task.future)  # type: ignore[arg-type]
        task.future.add_done_callback(self._explaining.discard)
        return task

    def stream(
        self,
        key: VersionKey,
        tensors: Sequence[Tensor],
        listener: StreamReader,
        *,
        params: Params | None,
        credits: int,  # noqa: A002 - the protocol's name for it
        timeout_s: float,
        stream_id: int = 0,
        customer_id: int = 0,
        request_id: str = "",
    ) -> RunningStream:
        """Begin to stream; raise EngineError if it cannot be accepted."""
        version = self._ready(key)
        assert version.signature is not None
        assert version.lane is not None
        model = version.lane.runner
        if not isinstance(model, runner.StreamRunner):
            raise EngineError(EngineErrorCode.BAD_REQUEST, f"{key} does not stream")
        checks.check_layout(version.signature, tensors)
        checks.check_params(version.signature, params)
        if len(tensors[0].data) != 1:
            raise EngineError(
                EngineErrorCode.BAD_REQUEST, "a stream answers one row, not several"
            )
        return self.streams.start(
            stream_id,
            listener,
            model,
            tensors,
            params,
            credits=credits,
            timeout_s=timeout_s,
            customer_id=customer_id,
            name=str(key),
            request_id=request_id,
            log_values=version.lane.log_values,
        )

    def _ready(self, key: VersionKey) -> VersionState:
        if self.draining:
            raise EngineError(
                EngineErrorCode.DRAINING,
                "the engine is stopping",
                retry_after_ms=_DRAINING_RETRY_MS,
            )
        return self.versions.ready(key)

    def _admit_layout(self, version: VersionState, entry: Entry) -> None:
        assert version.signature is not None
        checks.check_layout(version.signature, entry.tensors)
        checks.check_params(version.signature, entry.params)
        if len(version.layouts) < _MAX_LAYOUTS:
            version.layouts.add(entry.layout)

    # Process

    def status(self, id: int = 0) -> EngineStatus:  # noqa: A002 - the reply's field
        return EngineStatus(
            id=id,
            device=self.settings.device,
            pid=os.getpid(),
            memory_bytes=psutil.Process().memory_info().rss,
            versions=self.versions.status(),
            counters=self.counters
            | self.batcher.counters
            | self.versions.counters
            | self.streams.counters
            | self._explain_thread.counters
            | {
                "unanswered": self.batcher.unanswered,
                "running_streams": len(self.streams),
                "queued_rows": self.batcher.room.rows,
                "queued_bytes": self.batcher.room.nbytes,
                "versions_memory_bytes": self.versions.nbytes,
                "memory_budget_bytes": self.versions.budget,
                "cpu_us": int(time.process_time() * 1e6),
                "open_files": own_use.open_files(),
            }
            | opening.counters(self.settings.device),
            device_status=self._device_status(),
            distributions={
                "batch_rows": self.batcher.batch_rows.spread(),
                "queue_seconds": self.batcher.queue_seconds.spread(),
            },
        )

    def _device_status(self) -> DeviceStatus | None:
        device = opening.opened(self.settings.device)
        if device is None:
            return None
        try:
            return DeviceStatus(device.title, *device.memory())
        except RuntimeError as error:
            # Without predictions, this call is the first to notice a failed device.
            if failures.is_sticky(error):
                self._on_fatal()
            return None

    async def drain(self, timeout_s: float) -> bool:
        """Refuse new requests and wait for accepted ones; return whether all ended."""
        self.draining = True
        deadline = self._loop.time() + timeout_s
        while self.batcher.unanswered or self._explaining or self.streams.unanswered:
            if self._loop.time() >= deadline:
                return False
            await asyncio.sleep(0.005)
        return True

    def close(self) -> None:
        self.streams.close()
        self._explain_thread.close()
        self.batcher.close()
        self.versions.close()
