"""Test that loads run beside each other, as threads and memory allow."""

import threading
from types import SimpleNamespace

import pytest

from inference.engine.engine import EngineCore
from inference.engine.loading import turns
from inference.engine.loading.growth import Growth
from inference.engine.runners import torch_export
from inference.engine.wire.errors import EngineError, EngineErrorCode
from tests.inference.engine.fakes import ready, run, settings
from tests.inference.engine.loading.test_versions import (
    MIB,
    Shelf,
    key,
    predict,
    states,
)
from tests.waiting import until


class SlowShelf(Shelf):
    """A shelf whose loads wait until a test lets them go on."""

    def __init__(self, home, **sizes):
        super().__init__(home, **sizes)
        self.begun = []
        self.at_once = 0
        self.most_at_once = 0
        self.gates = {name: threading.Event() for name in sizes}
        self.failing = set()

    def load(self, wanted, device):
        name = wanted.key.model
        with self.lock:
            self.begun.append(name)
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            assert self.gates[name].wait(60)
            if name in self.failing:
                raise RuntimeError("broken")
            return super().load(wanted, device)
        finally:
            with self.lock:
                self.at_once -= 1


def start(home, shelf, *, budget_mib=1000, **fields):
    return EngineCore(
        settings(home, memory_budget_bytes=budget_mib * MIB, inline_ms=0, **fields),
        load=shelf.load,
        device_memory=shelf,
    )


def sizes(engine):
    return {one.key.model: one.memory_bytes // MIB for one in engine.status().versions}


def test_a_quick_load_and_calls_wait_for_no_slow_load(tmp_path):
    async def main():
        shelf = SlowShelf(tmp_path, slow=1, quick=1)
        engine = start(tmp_path, shelf)
        engine.load(shelf.to_load("slow"))
        await until(lambda: shelf.begun == ["slow"])

        engine.load(shelf.to_load("quick"))
        shelf.gates["quick"].set()
        await ready(engine, key("quick"))

        assert await predict(engine, "quick", 2) == 4
        assert states(engine) == {"slow": "loading", "quick": "ready"}
        shelf.gates["slow"].set()
        await ready(engine, key("slow"))
        assert await predict(engine, "slow", 3) == 6

    run(main())


def test_no_more_loads_run_than_the_setting_says(tmp_path):
    async def main():
        names = [f"m{n}" for n in range(6)]
        shelf = SlowShelf(tmp_path, **dict.fromkeys(names, 1))
        engine = start(tmp_path, shelf, max_parallel_loads=2)

        for name in names:
            engine.load(shelf.to_load(name))
        await until(lambda: len(shelf.begun) == 2)
        for name in names:
            shelf.gates[name].set()
        await until(lambda: set(states(engine).values()) == {"ready"})

        assert sorted(shelf.begun) == names
        assert shelf.most_at_once == 2

    run(main())


def test_loads_that_do_not_fit_together_run_one_after_another(tmp_path):
    async def main():
        shelf = SlowShelf(tmp_path, a=60, b=60, small=10)
        engine = start(tmp_path, shelf, budget_mib=100)
        for name in ("a", "b", "small"):
            engine.load(shelf.to_load(name, pinned=True))

        # The small one fits beside the first, and passes the second.
        await until(lambda: shelf.begun == ["a", "small"])
        shelf.gates["small"].set()
        await ready(engine, key("small"))
        assert shelf.begun == ["a", "small"]

        shelf.gates["a"].set()
        await ready(engine, key("a"))
        # A route needs it, so it loads even over the budget, but alone.
        await until(lambda: shelf.begun == ["a", "small", "b"])
        shelf.gates["b"].set()
        await ready(engine, key("b"))
        assert set(states(engine).values()) == {"ready"}

    run(main())


def test_a_load_that_waits_is_forgotten_with_its_version(tmp_path):
    async def main():
        shelf = SlowShelf(tmp_path, a=1, b=1, c=1)
        engine = start(tmp_path, shelf, max_parallel_loads=1)
        for name in ("a", "b", "c"):
            engine.load(shelf.to_load(name))

        engine.unload(key("b"))
        for gate in shelf.gates.values():
            gate.set()
        await ready(engine, key("c"))

        assert shelf.begun == ["a", "c"]

    run(main())


def test_a_version_that_fails_is_in_nobodys_way(tmp_path):
    async def main():
        shelf = SlowShelf(tmp_path, broken=1, good=1)
        shelf.failing = {"broken"}
        engine = start(tmp_path, shelf, max_parallel_loads=1)
        for name in ("broken", "good"):
            engine.load(shelf.to_load(name))
            shelf.gates[name].set()

        await ready(engine, key("good"))

        assert states(engine) == {"broken": "failed", "good": "ready"}
        with pytest.raises(EngineError) as caught:
            await predict(engine, "broken")
        assert caught.value.code is EngineErrorCode.LOAD_FAILED

    run(main())


def test_memory_of_loads_that_overlap_is_shared_by_their_sizes(tmp_path):
    async def main():
        shelf = SlowShelf(tmp_path, large=40, little=10, later=5)
        # In memory each takes three times as much as on disk.
        shelf.sizes = {name: 3 * size for name, size in shelf.sizes.items()}
        engine = start(tmp_path, shelf)
        for name in ("large", "little"):
            engine.load(shelf.to_load(name))
        await until(lambda: len(shelf.begun) == 2)

        shelf.gates["little"].set()
        await ready(engine, key("little"))
        # Until the other has loaded, only its estimate is known.
        assert sizes(engine)["little"] == 10
        shelf.gates["large"].set()
        await until(lambda: sizes(engine) == {"large": 120, "little": 30})

        shelf.gates["later"].set()
        engine.load(shelf.to_load("later"))
        await ready(engine, key("later"))
        assert sizes(engine) == {"large": 120, "little": 30, "later": 15}

    run(main())


def test_a_load_that_fails_beside_others_takes_no_memory():
    used = [100]
    growth = Growth(lambda: used[0])
    for _ in range(3):
        growth.begin()

    used[0] = 150
    assert growth.end("a", 10) == {}
    assert growth.end(None) == {}
    assert growth.end("b", 40) == {"a": 10, "b": 40}

    growth.begin()
    assert growth.end(None) == {}
    growth.begin()
    used[0] = 500
    assert growth.end("c") == {"c": 350}


@pytest.mark.parametrize(
    ("running", "waiting", "chosen"),
    [
        ([], [50, 60, 20], [0, 2]),
        ([], [500, 20], [0]),
        ([90], [20, 10], [1]),
        ([90], [500], []),
        ([1, 1, 1], [1], []),
        ([1], [1, 1, 1], [0, 1]),
    ],
)
def test_which_loads_start_beside_others(running, waiting, chosen):
    loads = [SimpleNamespace(nbytes=nbytes, may_start=True) for nbytes in waiting]

    started = turns.starting(loads, running=running, resident=0, budget=100, most=3)

    assert started == [loads[place] for place in chosen]


def test_a_load_whose_room_is_not_free_yet_lets_others_pass():
    blocked = SimpleNamespace(nbytes=10, may_start=False)
    free = SimpleNamespace(nbytes=10, may_start=True)

    started = turns.starting(
        [blocked, free], running=[], resident=0, budget=100, most=3
    )

    assert started == [free]


def test_loads_wait_until_the_libraries_are_there(tmp_path, monkeypatch):
    async def main():
        imported = threading.Event()
        monkeypatch.setattr(torch_export, "prepare", lambda: imported.wait(60))
        shelf = SlowShelf(tmp_path, a=1)
        shelf.gates["a"].set()
        engine = start(tmp_path, shelf)

        engine.prepare()
        engine.load(shelf.to_load("a"))
        assert states(engine) == {"a": "loading"}
        assert shelf.begun == []
        imported.set()

        await ready(engine, key("a"))

    run(main())
