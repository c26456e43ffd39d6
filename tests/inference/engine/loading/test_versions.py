"""Test that versions are loaded and evicted as memory allows."""

import asyncio
import threading

import pytest
import structlog

from inference.engine.engine import EngineCore
from inference.engine.in_process import InProcessEngineClient
from inference.engine.loading import desired
from inference.engine.runners.runner import Loaded
from inference.engine.wire.calls import PredictionCall
from inference.engine.wire.errors import EngineError, EngineErrorCode
from inference.engine.wire.messages import Batching, VersionKey
from tests.inference.engine.fakes import (
    MATRIX,
    FakeRunner,
    ManualClock,
    ready,
    rows,
    run,
    settings,
    teach,
    to_load,
    until,
)

MIB = 1024 * 1024


class Shelf:
    """A fake device memory, and a loader that puts versions into it."""

    def __init__(self, home, **sizes):
        self.folders = {}
        for name, size in sizes.items():
            self.folders[name] = home / name
            self.folders[name].mkdir()
            # A sparse file: it has the size of a model but takes no room.
            with (self.folders[name] / "model").open("wb") as file:
                file.truncate(size * MIB)
        self.sizes = {path: size * MIB for path, size in sizes.items()}
        self.bytes = 100 * MIB
        self.most = 0
        self.loads = []
        self.runners = {}
        self.lock = threading.Lock()

    def to_load(self, name, **fields):
        return to_load(key(name), path=str(self.folders[name]), **fields)

    def used(self):
        return self.bytes

    def capacity(self):
        return 10_000 * MIB

    def grow(self, nbytes):
        with self.lock:
            self.bytes += nbytes
            self.most = max(self.most, self.bytes - 100 * MIB)

    def load(self, wanted, device):
        name = wanted.key.model
        self.loads.append(name)
        self.grow(self.sizes[name])
        shelf = self

        class Runner(FakeRunner):
            def unload(self):
                shelf.grow(-shelf.sizes[name])
                super().unload()

        runner = self.runners[name] = Runner()
        return Loaded(runner, MATRIX)


def start(home, shelf, *, budget_mib=100):
    return EngineCore(
        settings(home, memory_budget_bytes=budget_mib * MIB, inline_ms=0),
        load=shelf.load,
        device_memory=shelf,
    )


def key(name):
    return VersionKey(name, 1)


def states(engine):
    return {one.key.model: one.state for one in engine.status().versions}


async def load(engine, shelf, name, *, pinned=False, **fields):
    engine.load(shelf.to_load(name, pinned=pinned, **fields))
    await ready(engine, key(name))


async def predict(engine, name, value=1.0):
    client = InProcessEngineClient(engine)
    answer = await client.predict(PredictionCall(key(name), rows(value), timeout_s=5))
    return float(answer.tensors[0].data[0, 0])


async def call(engine, name):
    """Call until the version answers, like a caller that obeys Retry-After."""
    async with asyncio.timeout(60):
        while True:
            try:
                return await predict(engine, name)
            except EngineError as error:
                if error.code is not EngineErrorCode.LOADING:
                    raise
                await asyncio.sleep(0.005)


def test_published_versions_load_while_there_is_room(tmp_path):
    async def main():
        shelf = Shelf(tmp_path, a=40, b=40)
        engine = start(tmp_path, shelf)

        await load(engine, shelf, "a")
        await load(engine, shelf, "b")

        assert states(engine) == {"a": "ready", "b": "ready"}
        counters = engine.status().counters
        assert counters["versions_memory_bytes"] == 80 * MIB
        assert counters["memory_budget_bytes"] == 100 * MIB
        assert [one.memory_bytes for one in engine.status().versions] == [40 * MIB] * 2

    run(main())


def test_the_time_of_a_load_leaves_out_the_wait_for_its_turn(tmp_path):
    async def main():
        clock = ManualClock()
        shelf = Shelf(tmp_path, a=10, b=10)
        first = threading.Event()

        def load_slowly(wanted, device):
            assert first.wait(60)
            clock.now += 2
            return shelf.load(wanted, device)

        engine = EngineCore(
            settings(tmp_path, max_parallel_loads=1), load=load_slowly, clock=clock
        )
        with structlog.testing.capture_logs() as logged:
            for name in ("a", "b"):
                engine.load(shelf.to_load(name))
            first.set()
            for name in ("a", "b"):
                await ready(engine, key(name))

        found = engine.status().versions
        assert [version.load_ms for version in found] == [2000, 2000]
        told = [one["waited_ms"] for one in logged if one["event"] == "ready"]
        assert told == [0, 2000]
        engine.close()

    run(main())


def test_the_least_recently_used_leaves_for_the_one_that_is_called(tmp_path):
    async def main():
        shelf = Shelf(tmp_path, a=40, b=40, c=40)
        engine = start(tmp_path, shelf)
        await load(engine, shelf, "a")
        await load(engine, shelf, "b")
        await load(engine, shelf, "c")
        await until(lambda: "evicted" in states(engine).values())
        await call(engine, "c")
        await call(engine, "a")
        await call(engine, "c")

        # `a` was called after `b`, so `b` leaves first; later it is the reverse.
        await call(engine, "b")

        assert states(engine) == {"a": "evicted", "b": "ready", "c": "ready"}
        assert engine.status().counters["evictions"] >= 1
        assert engine.status().counters["demand_loads"] >= 1
        await until(lambda: shelf.bytes == 180 * MIB)

    run(main())


def test_what_a_route_serves_stays_and_sends_others_away(tmp_path):
    async def main():
        shelf = Shelf(tmp_path, served=60, a=40, also_served=60)
        engine = start(tmp_path, shelf)
        await load(engine, shelf, "served", pinned=True)
        await load(engine, shelf, "a")

        await load(engine, shelf, "also_served", pinned=True)

        assert states(engine)["served"] == states(engine)["also_served"] == "ready"
        await until(lambda: states(engine)["a"] == "evicted")
        with pytest.raises(EngineError) as caught:
            await predict(engine, "a")
        # No other version could leave for it.
        assert caught.value.code is EngineErrorCode.LOADING
        assert caught.value.retry_after_ms == 60_000
        assert shelf.loads == ["served", "a", "also_served"]

    run(main())


def test_an_evicted_version_loads_when_a_route_names_it(tmp_path):
    async def main():
        shelf = Shelf(tmp_path, a=60, b=60)
        engine = start(tmp_path, shelf)
        await load(engine, shelf, "a")
        await load(engine, shelf, "b")
        await until(lambda: "evicted" in states(engine).values())
        away = next(name for name, state in states(engine).items() if state != "ready")
        loads = len(shelf.loads)

        await load(engine, shelf, away, pinned=True)

        assert states(engine)[away] == "ready"
        assert len(shelf.loads) == loads + 1
        assert [one.pinned for one in desired.read(engine.settings)].count(True) == 1

    run(main())


def test_those_that_wait_are_answered_before_a_version_leaves(tmp_path):
    async def main():
        shelf = Shelf(tmp_path, a=60, b=60)
        engine = start(tmp_path, shelf)
        await load(engine, shelf, "a")
        shelf.runners["a"].hold()
        calls = [asyncio.create_task(predict(engine, "a", n)) for n in range(4)]
        await until(shelf.runners["a"].started.is_set)
        engine.load(shelf.to_load("b", pinned=True))
        await until(lambda: states(engine)["a"] == "evicted")
        assert shelf.loads == ["a"]

        shelf.runners["a"].release()

        assert await asyncio.gather(*calls) == [0, 2, 4, 6]
        await ready(engine, key("b"))
        # The memory was free before the next version took it.
        assert shelf.most == 60 * MIB

    run(main())


def test_limits_of_a_version_change_without_loading_it_again(tmp_path):
    async def main():
        shelf = Shelf(tmp_path, a=1)
        engine = start(tmp_path, shelf)
        await load(engine, shelf, "a")

        await load(engine, shelf, "a", batching=Batching(max_batch_rows=2))
        teach(engine, key=key("a"))
        await asyncio.gather(*(predict(engine, "a", n) for n in range(6)))

        assert shelf.loads == ["a"]
        assert shelf.runners["a"].batches == [2, 2, 2]
        assert engine.status().versions[0].batching.max_batch_rows == 2
        assert desired.read(engine.settings)[0].batching.max_batch_rows == 2

    run(main())


def test_limits_that_change_while_a_version_loads_hold_from_its_start(tmp_path):
    async def main():
        shelf = Shelf(tmp_path, a=1)
        engine = start(tmp_path, shelf)

        engine.load(shelf.to_load("a"))
        engine.load(shelf.to_load("a", batching=Batching(max_batch_rows=2)))
        await ready(engine, key("a"))
        teach(engine, key=key("a"))
        await asyncio.gather(*(predict(engine, "a", n) for n in range(6)))

        assert shelf.loads == ["a"]
        assert shelf.runners["a"].batches == [2, 2, 2]

    run(main())


def test_a_version_that_turns_out_too_large_leaves_again(tmp_path):
    async def main():
        shelf = Shelf(tmp_path, a=60, b=30)
        shelf.sizes["b"] = 50 * MIB
        engine = start(tmp_path, shelf)
        await load(engine, shelf, "a", pinned=True)

        await load(engine, shelf, "b")

        await until(lambda: states(engine) == {"a": "ready", "b": "evicted"})
        for _ in range(3):
            with pytest.raises(EngineError):
                await predict(engine, "b")
        # Now that its size is known, the engine does not try again.
        assert shelf.loads == ["a", "b"]

    run(main())
