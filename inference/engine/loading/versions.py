"""Load, reload, evict and unload the versions of one engine.

    loading ─► ready ─► evicted (memory was needed) ─► loading (it was called) …
       └────► failed

During a reload the old runner answers until the new one is ready, except if the
artifact changed or its code is not trusted any more. The list of versions to load is on
disk, so that an engine can restart alone.
"""

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any, Literal, NamedTuple

import structlog

from inference.engine.batching import bounds, lane, lengths
from inference.engine.batching.batcher import Batcher
from inference.engine.batching.entry import Layout
from inference.engine.batching.lane import Lane
from inference.engine.batching.lengths import VariableLengths
from inference.engine.batching.notes import NoNotes, PieceNotes
from inference.engine.devices import failures
from inference.engine.explaining.lane_model import LaneModel
from inference.engine.loading import desired, memory, residency, turns
from inference.engine.loading.growth import Growth
from inference.engine.loading.memory import ModelMemory
from inference.engine.loading.residency import Resident
from inference.engine.runners import torch_export
from inference.engine.runners.runner import Loaded
from inference.engine.settings import EngineSettings
from inference.engine.signatures.signature import Signature
from inference.engine.wire.errors import EngineError, EngineErrorCode, VersionRefused
from inference.engine.wire.messages import (
    OutputTensor,
    VersionKey,
    VersionStatus,
    VersionToLoad,
)

logger = structlog.get_logger()

Loader = Callable[[VersionToLoad, str], Loaded]
_LOADING_RETRY_MS = 1000
_NO_ROOM_RETRY_MS = 60_000
# A load waits this long for the batches of evicted versions, then starts anyway.
_LEAVE_S = 30.0
_QUARANTINED = "{} is quarantined: this process died twice while it ran"


class VersionState:
    """One version: the request to load it, and its current state."""

    def __init__(self, wanted: VersionToLoad, *, now: float) -> None:
        self.want(wanted)
        self.state: Literal["loading", "ready", "failed", "evicted"] = "loading"
        self.error = ""
        self.refused = False
        self.load_ms: int | None = None
        # Measured when loaded; estimated from the size of its files before.
        self.nbytes = 0
        self.measured = False
        self.used_at = now
        # Number of loads begun; only the result of the last one counts.
        self.attempt = 0
        self.lane: Lane | None = None
        self.model: LaneModel | None = None
        self.signature: Signature | None = None
        self.outputs: tuple[OutputTensor, ...] = ()
        # Why its requests must not share batches, as found when it was loaded.
        self.apart = ""
        # Seconds since the epoch.
        self.ready_at = 0.0
        # The last batches on which it failed, also before a reload.
        self.failures = lane.failures_kept()
        # Layouts of requests that passed the check against the signature.
        self.layouts: set[Layout] = set()
        # Checks and pads requests if lengths vary.
        self.lengths: VariableLengths | None = None

    def want(self, wanted: VersionToLoad) -> None:
        self.wanted, self.form = wanted, wanted.form()

    @property
    def joins(self) -> bool:
        """Whether its requests share batches."""
        join = self.wanted.batching.join
        return not self.apart if join is None else join


class _Load:
    """A load that waits for its turn, and then runs in a thread."""

    def __init__(
        self, version: VersionState, left: Sequence[threading.Event], *, now: float
    ) -> None:
        self.version = version
        self.wanted, self.attempt = version.wanted, version.attempt
        self.nbytes = version.nbytes
        self.wanted_at = now
        # Versions that leave for it, until it waits for them no longer.
        self.left = left

    @property
    def may_start(self) -> bool:
        return all(gone.is_set() for gone in self.left)


class _Measured(NamedTuple):
    loaded: Loaded
    nbytes: int
    # False while other loads run, whose memory is not told apart yet.
    is_final: bool
    # Time of the load itself, and time waiting for its turn and for memory.
    load_ms: int
    waited_ms: int


class Versions:
    """An engine's versions, used on its event loop; threads load some at a time."""

    def __init__(
        self,
        settings: EngineSettings,
        batcher: Batcher,
        *,
        load: Loader,
        clock: Callable[[], float],
        loop: asyncio.AbstractEventLoop,
        on_ready: Callable[[], None],
        on_fatal: Callable[[], None] = lambda: None,
        device_memory: ModelMemory | None = None,
        remembers: bool = True,
        refused: frozenset[VersionKey] = frozenset(),
        notes: PieceNotes | None = None,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._settings = settings
        self._batcher = batcher
        self._load = load
        self._clock = clock
        self._loop = loop
        self._on_ready = on_ready
        self._on_fatal = on_fatal
        self._notes = NoNotes() if notes is None else notes
        self._wall_clock = wall_clock
        self._memory = device_memory or memory.of_device(settings.device)
        self._budget = settings.memory_budget_bytes
        self._remembers = remembers
        self._refused = refused
        self._threads = ThreadPoolExecutor(
            settings.max_parallel_loads, thread_name_prefix="load"
        )
        self._growth: Growth[_Load] = Growth(self._memory.used)
        # In the order in which they were asked for.
        self._waiting: list[_Load] = []
        self._running: list[_Load] = []
        self._preparing = False
        self.by_key: dict[VersionKey, VersionState] = {}
        self.counters = {"evictions": 0, "demand_loads": 0}

    @property
    def budget(self) -> int:
        """Memory for all versions together: the setting, or 80 % of the device's."""
        if not self._budget:
            self._budget = self._memory.capacity()
        return self._budget

    @property
    def nbytes(self) -> int:
        return sum(one.nbytes for one in self._residents())

    def prepare(self, prepared: Callable[[], None]) -> None:
        """Import the libraries in the background; loads wait for that.

        Imports in several threads can meet halfway, and their memory is no version's.
        """
        self._preparing = True

        def done(task: Future[None]) -> None:
            self._call_soon(self._prepared, prepared)

        self._threads.submit(_prepare).add_done_callback(done)

    def _prepared(self, prepared: Callable[[], None]) -> None:
        self._preparing = False
        prepared()
        self._start_loads()

    def restore(self) -> None:
        """Load the versions of an earlier process, those that routes use first."""
        known = desired.read(self._settings) if self._remembers else ()
        for wanted in sorted(known, key=lambda one: not one.pinned):
            self.load(wanted, remember=False)

    def load(self, wanted: VersionToLoad, *, remember: bool = True) -> None:
        """Begin to load a version; the same request again changes nothing."""
        version = self.by_key.get(wanted.key)
        if version is None:
            version = VersionState(wanted, now=self._clock())
            self.by_key[wanted.key] = version
        elif version.state != "failed" and version.form == wanted.form():
            if version.wanted != wanted:
                self._adjust(version, wanted)
            return
        else:
            if _must_stop(version.wanted, wanted) and version.lane is not None:
                self._release(version.lane)
                version.lane = version.model = None
            if version.form != wanted.form():
                version.error = ""
            version.want(wanted)
            version.measured = False
        if remember:
            self._remember()
        if wanted.key in self._refused:
            version.state, version.refused = "failed", True
            version.error = _QUARANTINED.format(wanted.key)
            return
        # For a version in a route others may have to leave; any other takes free room.
        self._begin(version, make_room=wanted.pinned)

    def unload(self, key: VersionKey) -> None:
        """Forget a version; do nothing if it is unknown.

        Waiting requests are still answered; then its memory is freed.
        """
        version = self.by_key.pop(key, None)
        if version is None:
            return
        self._remember()
        logger.info("unloaded", version=str(key))
        if version.lane is not None:
            self._release(version.lane)

    def ready(self, key: VersionKey) -> VersionState:
        """Return a ready version or raise EngineError; begin to load an evicted one."""
        version = self.by_key.get(key)
        if version is None:
            raise EngineError(EngineErrorCode.NOT_LOADED, f"{key} is not loaded")
        if version.state == "ready":
            version.used_at = self._clock()
            return version
        if version.state == "failed" or (version.state == "loading" and version.error):
            raise EngineError(EngineErrorCode.LOAD_FAILED, version.error)
        if version.state == "evicted":
            self.counters["demand_loads"] += 1
            self._begin(version, make_room=True)
        retry_ms = max(version.load_ms or 0, _LOADING_RETRY_MS)
        if version.state == "evicted":
            retry_ms = _NO_ROOM_RETRY_MS
        raise EngineError(
            EngineErrorCode.LOADING, f"{key} is loading", retry_after_ms=retry_ms
        )

    @property
    def loading(self) -> bool:
        return any(version.state == "loading" for version in self.by_key.values())

    def status(self) -> tuple[VersionStatus, ...]:
        return tuple(_status(version) for version in self.by_key.values())

    def close(self) -> None:
        self._waiting.clear()
        self._threads.shutdown(wait=False, cancel_futures=True)

    # Loading

    def _adjust(self, version: VersionState, wanted: VersionToLoad) -> None:
        """Apply changes that do not need a reload of the artifact."""
        version.want(wanted)
        self._remember()
        logger.info("adjusted", version=str(wanted.key), pinned=wanted.pinned)
        if version.lane is not None:
            limits, max_wait_s = bounds.of_version(self._settings, wanted.batching)
            version.lane.limit(limits, max_wait_s=max_wait_s)
            version.lane.joins = version.joins
            version.lane.log_values = wanted.process.log_values
        if wanted.pinned and version.state == "evicted":
            self._begin(version, make_room=True)

    def _begin(self, version: VersionState, *, make_room: bool) -> None:
        wanted = version.wanted
        if not version.measured:
            version.nbytes = memory.artifact_bytes(wanted.path)
        leavers = self._leavers(version.nbytes, apart_from=version)
        if not wanted.pinned and (leavers is None or (leavers and not make_room)):
            # Without room for a reload, the old runner goes on answering.
            if version.lane is None:
                version.state = "evicted"
                version.error = f"no room for {version.nbytes} bytes on this device"
            return
        if leavers is None:
            # Versions in routes load even over the budget; all others leave.
            logger.warning("over_memory_budget", version=str(wanted.key))
            leavers = self._removable(apart_from=version)
        left = [self._evict(self.by_key[key]) for key in leavers]
        # During a reload a version stays ready.
        if version.lane is None:
            # Keep the reason of a failure until another attempt succeeds.
            if version.state != "failed":
                version.error = ""
            version.state = "loading"
        version.attempt += 1
        logger.info("loading", version=str(wanted.key), path=wanted.path)
        load = _Load(version, left, now=self._clock())
        self._waiting.append(load)
        if left:
            self._loop.call_later(_LEAVE_S, self._wait_no_longer, load)
        self._start_loads()

    def _wait_no_longer(self, load: _Load) -> None:
        load.left = ()
        self._start_loads()

    def _start_loads(self) -> None:
        """Start the loads whose turn it is; forget those that nobody wants any more."""
        self._waiting = [load for load in self._waiting if self._is_wanted(load)]
        if self._preparing or not self._waiting:
            return
        resident = sum(one.nbytes for one in self.by_key.values() if one.lane)
        for load in turns.starting(
            self._waiting,
            running=[one.nbytes for one in self._running],
            resident=resident,
            budget=self.budget,
            most=self._settings.max_parallel_loads,
        ):
            self._waiting.remove(load)
            self._running.append(load)
            task = self._threads.submit(self._load_measured, load)
            task.add_done_callback(partial(self._call_soon, self._loaded, load))

    def _is_wanted(self, load: _Load) -> bool:
        """Return whether a version was neither unloaded nor replaced meanwhile."""
        version = load.version
        known = self.by_key.get(load.wanted.key) is version
        return known and version.attempt == load.attempt

    def _load_measured(self, load: _Load) -> _Measured:
        """Load in a thread, beside other loads."""
        wanted, estimate = load.wanted, memory.artifact_bytes(load.wanted.path)
        started = self._clock()
        self._growth.begin()
        slot = self._notes.begin(str(wanted.key), 0, 0, loading=True)
        try:
            loaded = self._load(wanted, self._settings.device)
        except BaseException:
            self._share(self._growth.end(None))
            raise
        finally:
            self._notes.end(slot)
        load_ms = int((self._clock() - started) * 1000)
        memory.trim()
        sizes = self._growth.end(load, estimate)
        nbytes, is_final = sizes.pop(load, estimate), load in sizes
        self._share(sizes)
        waited_ms = int((started - load.wanted_at) * 1000)
        return _Measured(loaded, nbytes, is_final, load_ms, waited_ms)

    def _share(self, sizes: dict[_Load, int]) -> None:
        """Tell the event loop how large versions are that were loaded meanwhile."""
        if sizes:
            self._call_soon(self._measured, sizes)

    def _measured(self, sizes: dict[_Load, int]) -> None:
        for load, nbytes in sizes.items():
            if self._is_wanted(load) and load.version.lane is not None:
                load.version.nbytes, load.version.measured = nbytes, True
                self._leave_room(load.version)

    def _loaded(self, load: _Load, task: Future[_Measured]) -> None:
        self._running.remove(load)
        try:
            self._take(load, task)
        finally:
            self._start_loads()

    def _take(self, load: _Load, task: Future[_Measured]) -> None:
        version = load.version
        # Its limits may have changed meanwhile.
        wanted = version.wanted
        if not self._is_wanted(load):
            # Free what was loaded.
            if task.exception() is None:
                self._release(self._batcher.open_lane(task.result().loaded.runner))
            return
        error = task.exception()
        if error is not None:
            _load_failed(version, error)
            if failures.is_sticky(error):
                self._on_fatal()
            return
        loaded, version.nbytes, version.measured, version.load_ms, waited_ms = (
            task.result()
        )
        version.apart = loaded.apart
        limits, max_wait_s = bounds.of_version(self._settings, wanted.batching)
        old, version.lane = (
            version.lane,
            self._batcher.open_lane(
                loaded.runner,
                limits=limits,
                max_wait_s=max_wait_s,
                depth=loaded.depth,
                name=str(version.wanted.key),
                joins=version.joins,
                log_values=wanted.process.log_values,
                failures=version.failures,
            ),
        )
        version.signature = loaded.signature
        version.outputs = loaded.outputs
        version.layouts = set()
        version.lengths = lengths.of(loaded.signature)
        version.model = LaneModel(
            version.lane, loaded, wanted, self._batcher, loop=self._loop
        )
        version.state, version.error, version.refused = "ready", "", False
        version.used_at, version.ready_at = self._clock(), self._wall_clock()
        logger.info(
            "ready",
            version=str(wanted.key),
            load_ms=version.load_ms,
            waited_ms=waited_ms,
            memory_bytes=version.nbytes,
        )
        if old is not None:
            self._batcher.move(old, version.lane)
            self._release(old)
        self._leave_room(version)
        self._on_ready()

    # Memory

    def _residents(self, *, apart_from: VersionState | None = None) -> list[Resident]:
        return [
            Resident(
                key,
                version.nbytes,
                # A version that is loading cannot leave yet.
                version.wanted.pinned or version.state == "loading",
                version.used_at,
            )
            for key, version in self.by_key.items()
            if version is not apart_from and version.state in ("loading", "ready")
        ]

    def _removable(self, *, apart_from: VersionState) -> list[VersionKey]:
        return [
            one.key for one in self._residents(apart_from=apart_from) if not one.pinned
        ]

    def _leavers(
        self, needed: int, *, apart_from: VersionState
    ) -> list[VersionKey] | None:
        """Return which versions must leave for `needed` bytes; None: nothing helps."""
        residents = self._residents(apart_from=apart_from)
        return residency.leaving(residents, budget=self.budget, needed=needed)

    def _leave_room(self, version: VersionState) -> None:
        """Evict others for a version that is larger than expected, or evict itself."""
        leavers = self._leavers(version.nbytes, apart_from=version)
        if leavers is None:
            pinned = version.wanted.pinned
            leavers = (
                self._removable(apart_from=version) if pinned else [version.wanted.key]
            )
        for key in leavers:
            self._evict(self.by_key[key])

    def _evict(self, version: VersionState) -> threading.Event:
        """Evict a version: answer what waits, free the memory, then set the event."""
        gone = threading.Event()
        lane, version.lane, version.model = version.lane, None, None
        version.state = "evicted"
        version.error = "others needed its memory; it loads again when it is called"
        self.counters["evictions"] += 1
        logger.info("evicted", version=str(version.wanted.key))
        if lane is None:
            gone.set()
        else:
            self._release(lane, gone)
        return gone

    def _release(self, lane: Lane, gone: threading.Event | None = None) -> None:
        """Free a runner in a device thread, once no batch uses it any more."""

        def free() -> None:
            try:
                lane.runner.unload()
                memory.collect()
            finally:
                if gone is not None:
                    gone.set()
                    self._call_soon(self._start_loads)

        self._batcher.retire(lane, free)

    def _call_soon(self, function: Callable[..., None], *arguments: Any) -> None:
        """Call on the event loop, from any thread, unless the engine has ended."""
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(function, *arguments)

    def _remember(self) -> None:
        if not self._remembers:
            return
        desired.write(
            self._settings, [version.wanted for version in self.by_key.values()]
        )


def _prepare() -> None:
    try:
        torch_export.prepare()
    finally:
        memory.settle()


def _must_stop(old: VersionToLoad, new: VersionToLoad) -> bool:
    """Return whether the old runner must stop before the new one is ready.

    Another artifact under the same version number is a different model, registered
    anew; and code that is not trusted any more must not run.
    """
    return old.path != new.path or (old.trusted and not new.trusted)


def _load_failed(version: VersionState, error: BaseException) -> None:
    message = (
        error.message
        if isinstance(error, EngineError)
        else f"{version.wanted.key} was not loaded: {type(error).__name__}: {error}"[
            :500
        ]
    )
    version.error = message
    version.refused = isinstance(error, VersionRefused)
    # After a failed reload the old runner goes on answering; the reason is shown.
    if version.lane is None:
        version.state = "failed"
    logger.error("load_failed", version=str(version.wanted.key), reason=message)


def _status(version: VersionState) -> VersionStatus:
    lane = version.lane
    return VersionStatus(
        key=version.wanted.key,
        state=version.state,
        error=version.error,
        load_ms=version.load_ms,
        queued_rows=lane.queued_rows if lane else 0,
        queued_bytes=lane.queued_bytes if lane else 0,
        memory_bytes=version.nbytes if lane else 0,
        pinned=version.wanted.pinned,
        batching=version.wanted.batching,
        notes=getattr(lane.runner, "notes", ()) if lane else (),
        outputs=version.outputs,
        form=version.form,
        refused=version.refused,
        apart=_apart(version),
        calls=lane.calls if lane else 0,
        rows=lane.rows if lane else 0,
        batches=lane.batches if lane else 0,
        single_row_s=lane.cost.single_row_s if lane else 0.0,
        ready_at=version.ready_at if lane else 0.0,
        failures=tuple(version.failures),
    )


def _apart(version: VersionState) -> str:
    if version.joins or version.lane is None:
        return ""
    return version.apart or "its batching says so"
