"""Test that memory is freed: in the engine's counts and in the process itself."""

import asyncio
import os

import msgspec
import numpy as np
import psutil
import pytest

from inference.engine.engine import EngineCore
from inference.engine.in_process import InProcessEngineClient
from inference.engine.loading import memory
from inference.engine.runners.runner import Loaded
from inference.engine.signatures.signature import Layout, Signature
from inference.engine.wire.calls import PredictionCall
from inference.engine.wire.tensors import Tensor
from tests.inference.engine.fakes import (
    KEY,
    MATRIX,
    FakeRunner,
    ready,
    rows,
    run,
    settings,
    to_load,
    until,
)

MIB = 1024 * 1024
CYCLES = 200


class HeavyRunner(FakeRunner):
    """A runner that holds 33 MiB in a reference cycle, as graphs of modules do.

    glibc always maps blocks of this size separately and returns them when freed. Of
    smaller blocks it may keep 64 MiB at the end of each thread's arena: `malloc_trim`
    keeps a threshold there, which grows with what any earlier test freed.
    """

    def __init__(self):
        super().__init__()
        self.weights = np.ones(33 * MIB, np.uint8)
        self.itself = self


class LeakingRunner(HeavyRunner):
    """A broken runner: something keeps its weights alive."""

    kept = []

    def unload(self):
        super().unload()
        self.kept.append(self.weights)


def resident():
    return psutil.Process(os.getpid()).memory_info().rss


async def cycle(engine, predict, times):
    for _ in range(times):
        engine.load(to_load())
        await ready(engine)
        await predict()
        engine.unload(KEY)
    await until(lambda: not engine.versions.nbytes)


def grown_after(home, make_runner, *, cycles):
    """Return how many bytes the process grows by load, predict and unload."""

    async def main():
        unloaded = []

        def load(version, device):
            runner = make_runner()
            unloaded.append(runner.unloaded)
            return Loaded(runner, MATRIX)

        async def all_unloaded():
            await until(lambda: all(one.is_set() for one in unloaded))

        engine = EngineCore(settings(home, inline_ms=0), load=load)
        client = InProcessEngineClient(engine)

        async def predict():
            await client.predict(PredictionCall(KEY, rows(1), timeout_s=60))

        await cycle(engine, predict, 5)
        await all_unloaded()
        memory.collect()
        before = resident()
        await cycle(engine, predict, cycles)
        await all_unloaded()
        engine.close()
        # A thread frees the last ones soon.
        for _ in range(20):
            memory.collect()
            grown = resident() - before
            if grown < MIB:
                break
            await asyncio.sleep(0.05)
        return grown

    return run(main())


@pytest.mark.usefixtures("settled")
def test_two_hundred_cycles_give_their_memory_back(tmp_path):
    assert grown_after(tmp_path, HeavyRunner, cycles=CYCLES) < 50 * MIB


@pytest.mark.usefixtures("settled")
def test_a_leak_would_be_seen(tmp_path):
    try:
        assert grown_after(tmp_path, LeakingRunner, cycles=10) > 50 * MIB
    finally:
        LeakingRunner.kept.clear()


REAL_CYCLES = 12


@pytest.fixture
def program(tmp_path):
    """An exported program of 36 MB; if two stayed in memory, the test would fail."""
    import torch

    net = torch.nn.Sequential(
        torch.nn.Linear(3, 3000), torch.nn.Linear(3000, 3000), torch.nn.Linear(3000, 2)
    )
    exported = torch.export.export(
        net.eval(),
        (torch.ones(4, 3),),
        dynamic_shapes=({0: torch.export.Dim("rows")},),
    )
    (tmp_path / "program" / "data").mkdir(parents=True)
    torch.export.save(exported, tmp_path / "program" / "data" / "model.pt2")
    return to_load(
        path=str(tmp_path / "program"),
        flavors=("python_function", "pytorch"),
        signature=msgspec.to_builtins(
            Signature(layout=Layout.TENSOR, dtype="float32", shape=(3,))
        ),
    )


@pytest.mark.usefixtures("settled")
def test_real_programs_give_their_memory_back(tmp_path, program):
    async def main():
        engine = EngineCore(settings(tmp_path, inline_ms=0))
        client = InProcessEngineClient(engine)
        three = (Tensor("input", np.ones((2, 3), np.float32)),)

        async def cycles(times):
            for _ in range(times):
                engine.load(program)
                await ready(engine)
                await client.predict(PredictionCall(KEY, three, timeout_s=60))
                engine.unload(KEY)
                await until(lambda: not engine.versions.nbytes)
            memory.collect()

        await cycles(3)
        before = resident()
        await cycles(REAL_CYCLES)
        grown = resident() - before
        engine.close()
        return grown

    assert run(main()) < 50 * MIB


def test_an_artifact_is_as_large_as_its_files(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "weights").write_bytes(b"x" * 1000)
    (tmp_path / "MLmodel").write_bytes(b"x" * 10)

    assert memory.artifact_bytes(str(tmp_path)) == 1010
    assert memory.artifact_bytes("/nowhere") == 0


def test_the_host_has_room_and_uses_some_of_it():
    host = memory.of_device("cpu")

    assert 0 < host.used() < host.capacity() <= psutil.virtual_memory().total


@pytest.fixture
def settled():
    """Exclude the many objects of earlier tests."""
    memory.settle()


@pytest.mark.parametrize("limit", ["1000", "max", ""])
def test_a_container_has_what_it_may_use(tmp_path, monkeypatch, limit):
    path = tmp_path / "memory.max"
    path.write_text(limit)
    monkeypatch.setattr(memory, "_CGROUP_LIMIT", path)

    capacity = memory.of_device("cpu").capacity()

    total = psutil.virtual_memory().total
    assert capacity == (800 if limit == "1000" else int(total * 0.8))
