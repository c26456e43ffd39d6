"""The versions of one engine: loading, ready or failed; and who may use them.

States: `loading → ready`, `loading → failed`; a reload keeps the old runner answering
until the new one is ready. What should be loaded is kept on disk, so that an engine
comes back on its own.
"""

import asyncio
import ctypes
import gc
import os
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Literal

import psutil
import structlog

from inference.engine import desired, explaining, runner
from inference.engine.batcher import Batcher, BatchSettings, Lane
from inference.engine.errors import EngineError, EngineErrorCode
from inference.engine.explaining import LaneModel
from inference.engine.messages import (
    EngineStatus,
    ExplainOptions,
    VersionKey,
    VersionStatus,
    VersionToLoad,
)
from inference.engine.plugins import ExplainTask, ExplainThread
from inference.engine.runner import Loaded
from inference.engine.runners import torch_export
from inference.engine.settings import EngineSettings
from inference.engine.signature import Signature
from inference.engine.tensors import Tensor
from inference.engine.waiting import Entry, Layout, QueueLimits

logger = structlog.get_logger()

Loader = Callable[[VersionToLoad, str], Loaded]
_MAX_LAYOUTS = 64
_LOADING_RETRY_MS = 1000


class LoadedVersion:
    """One version: what was asked for, and what came of it."""

    def __init__(self, wanted: VersionToLoad) -> None:
        self.wanted = wanted
        self.state: Literal["loading", "ready", "failed"] = "loading"
        self.error = ""
        self.load_ms: int | None = None
        self.lane: Lane | None = None
        self.model: LaneModel | None = None
        self.signature: Signature | None = None
        # Layouts already found to agree with the signature.
        self.layouts: set[Layout] = set()


class Engine:
    """Belongs to the event loop it was made on, threads of its own aside."""

    def __init__(
        self,
        settings: EngineSettings,
        *,
        load: Loader = runner.load,
        clock: Callable[[], float] = time.monotonic,
        on_fatal: Callable[[], None] = lambda: None,
    ) -> None:
        self.settings = settings
        self._load = load
        self.clock = clock
        self._loop = asyncio.get_running_loop()
        self.batcher = Batcher(
            BatchSettings(
                limits=QueueLimits(
                    max_rows=settings.max_queue_rows,
                    max_bytes=settings.max_queue_bytes,
                    max_batch_rows=settings.max_batch_rows,
                    max_batch_bytes=settings.max_batch_bytes,
                ),
                max_wait_s=settings.max_wait_ms / 1000,
                inline_s=settings.inline_ms / 1000,
            ),
            loop=self._loop,
            clock=clock,
            on_fatal=on_fatal,
        )
        self._explain_thread = ExplainThread(
            settings.plugins, max_waiting=settings.max_explain_queue, clock=clock
        )
        self._loading_thread = ThreadPoolExecutor(1, thread_name_prefix="load")
        self._versions: dict[VersionKey, LoadedVersion] = {}
        self._explaining: set[Future[object]] = set()
        self.draining = False
        self.counters = {"malformed_frames": 0, "connections": 0, "explanations": 0}

    # Versions

    def prepare(self) -> None:
        """Import the libraries in the background, before anything is asked for."""
        self._loading_thread.submit(torch_export.prepare)

    def restore(self) -> None:
        """Load what an earlier process was asked for, in that order."""
        for wanted in desired.read(self.settings):
            self.load(wanted, remember=False)

    def load(self, wanted: VersionToLoad, *, remember: bool = True) -> None:
        """Begin to load; the same version in the same form again changes nothing."""
        version = self._versions.get(wanted.key)
        if version is None:
            version = self._versions[wanted.key] = LoadedVersion(wanted)
        elif version.wanted == wanted and version.state != "failed":
            return
        else:
            version.wanted = wanted
            # A version that answers stays ready while its new self loads.
            if version.lane is None:
                version.state, version.error = "loading", ""
        if remember:
            self._remember()
        logger.info("loading", version=str(wanted.key), path=wanted.path)
        started = self.clock()
        task = self._loading_thread.submit(self._load, wanted, self.settings.device)

        def done(task: Future[Loaded]) -> None:
            self._loop.call_soon_threadsafe(self._loaded, wanted, task, started)

        task.add_done_callback(done)

    def unload(self, key: VersionKey) -> None:
        """Forget a version and free its memory; unknown ones are no error."""
        version = self._versions.pop(key, None)
        if version is None:
            return
        self._remember()
        logger.info("unloaded", version=str(key))
        if version.lane is not None:
            self.batcher.close_lane(
                version.lane,
                EngineError(EngineErrorCode.NOT_LOADED, f"{key} was unloaded"),
            )
            self._release(version.lane)

    def _loaded(
        self, wanted: VersionToLoad, task: Future[Loaded], started: float
    ) -> None:
        version = self._versions.get(wanted.key)
        if version is None or version.wanted != wanted:
            # Unloaded or replaced meanwhile: nobody wants this one any more.
            if task.exception() is None:
                self._release(self.batcher.open_lane(task.result().runner))
            return
        version.load_ms = int((self.clock() - started) * 1000)
        error = task.exception()
        if error is not None:
            self._load_failed(version, error)
            return
        loaded = task.result()
        old, version.lane = version.lane, self.batcher.open_lane(loaded.runner)
        version.signature = loaded.signature
        version.layouts = set()
        version.model = LaneModel(
            version.lane, loaded, wanted, self.batcher, loop=self._loop
        )
        version.state, version.error = "ready", ""
        logger.info("ready", version=str(wanted.key), load_ms=version.load_ms)
        if old is not None:
            self.batcher.move(old, version.lane)
            self._release(old)
        self._warm_plugins()

    def _load_failed(self, version: LoadedVersion, error: BaseException) -> None:
        message = (
            error.message
            if isinstance(error, EngineError)
            else f"{version.wanted.key} was not loaded: {type(error).__name__}"
        )
        version.error = message
        # After a failed reload the old form goes on answering, with the reason shown.
        if version.lane is None:
            version.state = "failed"
        logger.error("load_failed", version=str(version.wanted.key), reason=message)

    def _release(self, lane: Lane) -> None:
        """Free a runner after the batch that may be using it, in the device thread."""
        lane.closed = True
        self.batcher.after_batch(lambda: _free(lane))

    def _warm_plugins(self) -> None:
        """Import explainers once nothing loads any more: both need the processor."""
        if self.settings.warm_plugins and not any(
            version.state == "loading" for version in self._versions.values()
        ):
            self._explain_thread.warm_up()

    def _remember(self) -> None:
        desired.write(
            self.settings, [version.wanted for version in self._versions.values()]
        )

    # Requests

    def submit(self, key: VersionKey, entry: Entry) -> None:
        """Queue a prediction; raise EngineError if it cannot be accepted."""
        version = self._ready(key)
        if entry.layout not in version.layouts:
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
    ) -> ExplainTask:
        """Queue an explanation; raise EngineError if it cannot be accepted."""
        version = self._ready(key)
        assert version.signature is not None
        assert version.model is not None
        explaining.check_layout(version.signature, tensors)
        deadline = self.clock() + timeout_s
        task = ExplainTask(
            version.model.until(deadline, self.clock),
            tensors,
            options,
            deadline=deadline,
        )
        self._explain_thread.submit(task)
        self.counters["explanations"] += 1
        self._explaining.add(task.future)  # type: ignore[arg-type]
        task.future.add_done_callback(self._explaining.discard)
        return task

    def _ready(self, key: VersionKey) -> LoadedVersion:
        if self.draining:
            raise EngineError(
                EngineErrorCode.DRAINING,
                "the engine is stopping",
                retry_after_ms=_LOADING_RETRY_MS,
            )
        version = self._versions.get(key)
        if version is None:
            raise EngineError(EngineErrorCode.NOT_LOADED, f"{key} is not loaded")
        if version.state == "loading":
            raise EngineError(
                EngineErrorCode.LOADING,
                f"{key} is loading",
                retry_after_ms=_LOADING_RETRY_MS,
            )
        if version.state == "failed":
            raise EngineError(EngineErrorCode.LOAD_FAILED, version.error)
        return version

    def _admit_layout(self, version: LoadedVersion, entry: Entry) -> None:
        assert version.signature is not None
        explaining.check_layout(version.signature, entry.tensors)
        if len(version.layouts) < _MAX_LAYOUTS:
            version.layouts.add(entry.layout)

    # Process

    def status(self, id: int = 0) -> EngineStatus:  # noqa: A002 - the reply's field
        return EngineStatus(
            id=id,
            device=self.settings.device,
            pid=os.getpid(),
            memory_bytes=psutil.Process().memory_info().rss,
            versions=tuple(
                VersionStatus(
                    key=key,
                    state=version.state,
                    error=version.error,
                    load_ms=version.load_ms,
                    queued_rows=version.lane.queue.rows if version.lane else 0,
                )
                for key, version in self._versions.items()
            ),
            counters=self.counters
            | self.batcher.counters
            | {"unanswered": self.batcher.unanswered},
        )

    async def drain(self, timeout_s: float) -> bool:
        """Refuse new requests and wait for the accepted; tell whether all finished."""
        self.draining = True
        deadline = self._loop.time() + timeout_s
        while self.batcher.unanswered or self._explaining:
            if self._loop.time() >= deadline:
                return False
            await asyncio.sleep(0.005)
        return True

    def close(self) -> None:
        self._explain_thread.close()
        self.batcher.close()
        self._loading_thread.shutdown(wait=False, cancel_futures=True)


def _free(lane: Lane) -> None:
    lane.runner.unload()
    gc.collect()
    # glibc keeps freed pages for itself; give a large model's back.
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
