"""Fake runners that need no model, and make engines with them."""

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from inference.engine.engine import EngineCore
from inference.engine.runners.runner import Loaded
from inference.engine.settings import EngineSettings
from inference.engine.signatures.signature import Column, Layout, Signature
from inference.engine.wire.messages import VersionKey, VersionToLoad
from inference.engine.wire.tensors import Tensor
from tests.waiting import until

KEY = VersionKey("doubler", 1)
MATRIX = Signature(
    layout=Layout.MATRIX,
    columns=(Column("a"), Column("b")),
    dtype="float32",
    shape=(2,),
)
# A row with this value makes FakeRunner raise.
POISON = -666.0


class FakeRunner:
    """A runner that doubles every value; a test can hold it, so that a queue forms."""

    torch_function = None

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.started = threading.Event()
        self.go_on = threading.Event()
        self.go_on.set()
        self.unloaded = threading.Event()
        self.error: Exception | None = None

    def hold(self) -> None:
        self.started.clear()
        self.go_on.clear()

    def release(self) -> None:
        self.go_on.set()

    def warm_up(self, tensors: Sequence[Tensor]) -> None:
        pass

    def run(self, tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
        self.batches.append(len(tensors[0].data))
        self.started.set()
        assert self.go_on.wait(60)
        if self.error is not None:
            raise self.error
        data = tensors[0].data
        if (data == POISON).any():
            raise RuntimeError("poison")
        return (Tensor("output", data * np.float32(2)),)

    def unload(self) -> None:
        self.unloaded.set()


class FakeStreamRunner(FakeRunner):
    """A runner that streams `count` chunks, counting up from the row's first value."""

    def __init__(self, count: int = 3) -> None:
        super().__init__()
        self.count = count
        self.made = 0
        self.params: Any = None
        self.closed = threading.Event()

    def stream(self, tensors: Sequence[Tensor], params: Any) -> Any:
        self.params = params
        first = int(tensors[0].data[0, 0])
        if first == POISON:
            raise RuntimeError("poison")
        try:
            for index in range(self.count):
                assert self.go_on.wait(60)
                self.made += 1
                yield {"index": first + index, "text": "ü"}
        finally:
            self.closed.set()


class ManualClock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class SlowRunner(FakeRunner):
    """A runner that takes a fixed time per row, measured by a manual clock."""

    def __init__(self, clock: ManualClock, *, row_s: float = 0.005) -> None:
        super().__init__()
        self.clock = clock
        self.row_s = row_s
        # Extra time of the next batches, as if the process had been stopped meanwhile.
        self.stalls: list[float] = []

    def run(self, tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
        outputs = super().run(tensors)
        self.clock.now += self.row_s * len(tensors[0].data)
        if self.stalls:
            self.clock.now += self.stalls.pop(0)
        return outputs


def to_load(
    key: VersionKey = KEY, path: str = "/nowhere", **fields: Any
) -> VersionToLoad:
    values: dict[str, Any] = {
        "flavors": ("fake",),
        "signature": msgspec.to_builtins(MATRIX),
    } | fields
    return VersionToLoad(key=key, path=path, **values)


def settings(home: object, **fields: Any) -> EngineSettings:
    values: dict[str, Any] = {"plugins": (), "warm_plugins": False} | fields
    return EngineSettings(home=str(home), **values)


def fake_engine(
    home: object,
    runner: FakeRunner,
    *,
    signature: Signature = MATRIX,
    clock: Callable[[], float] = time.monotonic,
    on_fatal: Callable[[], None] = lambda: None,
    depth: int = 1,
    load_s: float = 0.0,
    runners: Mapping[int, FakeRunner] | None = None,
    **fields: Any,
) -> EngineCore:
    """Make an engine whose versions share a runner; `runners` names those of others."""
    own = runners or {}

    def load(version: VersionToLoad, device: str) -> Loaded:
        time.sleep(load_s)
        return Loaded(own.get(version.key.version, runner), signature, depth)

    return EngineCore(
        settings(home, **fields),
        load=load,
        clock=clock,
        on_fatal=on_fatal,
    )


def rows(*values: float) -> tuple[Tensor, ...]:
    """Return one row of two equal numbers for each value."""
    data = np.repeat(np.array(values, dtype=np.float32)[:, None], 2, axis=1)
    return (Tensor("input", data),)


async def ready(engine: EngineCore, key: VersionKey = KEY) -> None:
    await until(
        lambda: all(
            version.state != "loading"
            for version in engine.status().versions
            if version.key == key
        )
    )


async def loaded_engine(home: object, runner: FakeRunner, **fields: Any) -> EngineCore:
    engine = fake_engine(home, runner, **fields)
    engine.load(to_load())
    await ready(engine)
    return engine


def teach(engine: EngineCore, row_s: float = 1e-6, key: VersionKey = KEY) -> None:
    """Let the engine know the time of a row, as after a first request.

    Until then its batches have one row.
    """
    lane = engine.versions.by_key[key].lane
    assert lane is not None
    lane.cost.observe(1, row_s)


def run(main: Coroutine[Any, Any, Any]) -> Any:
    async def bounded() -> Any:
        async with asyncio.timeout(240):
            return await main

    return asyncio.run(bounded())
