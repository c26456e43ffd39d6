"""Test which engine is asked; `test_engine_deaths` tests it with real processes."""

import asyncio

import msgspec
import numpy as np
import pytest

from inference.engine.wire.errors import EngineError, EngineErrorCode
from inference.engine.wire.messages import (
    EngineStatus,
    Explained,
    ExplainOptions,
    VersionKey,
    VersionStatus,
)
from inference.engine.wire.tensors import Tensor
from inference.gateway.driver.engines import Engines
from inference.prediction.effects import EngineCall, ExplainCall
from inference.snapshot.tables import Tables
from tests.inference.gateway.plant import published

KEY = VersionKey("m", 1)
ROWS = (Tensor("input", np.ones((1, 1), np.float32)),)


class FakeClient:
    """An engine's client that only counts what it is asked."""

    connected = True

    def __init__(self, address):
        self.address = address
        self.in_flight = 0
        self.state = "ready"
        self.failures = []
        self.begun = 0
        self.closed = False

    def begin(self, call, waiter):
        self.begun += 1
        self.in_flight += 1

    async def explain(self, call):
        self.begun += 1
        if self.failures:
            raise EngineError(self.failures.pop(0), "")
        return Explained(0, (), 1, 1)

    async def status(self):
        version = VersionStatus(KEY, state=self.state)
        return EngineStatus(1, "cpu", 1, 1, (version,), {})

    async def close(self):
        self.closed = True


class Plant:
    def __init__(self, *names, **of_version):
        snapshot = published(engines=names)
        [model] = snapshot.models
        [version] = model.versions
        version = msgspec.structs.replace(version, **of_version)
        model = msgspec.structs.replace(model, versions=(version,))
        tables = Tables(msgspec.structs.replace(snapshot, models=(model,)))
        self.names = names
        self.made = {}
        self.engines = Engines(self._connect, tables)
        self.engines.replace(tables.engines)

    def _connect(self, address):
        self.made[address] = FakeClient(address)
        return self.made[address]

    def begin(self, count=1):
        call = EngineCall(KEY, ROWS, 30.0, engines=self.names)
        for _ in range(count):
            self.engines.begin(call, None)

    def explain(self):
        call = ExplainCall(KEY, ROWS, 30.0, ExplainOptions(), engines=self.names)
        return self.engines.explain(call)

    def begun(self):
        return [client.begun for client in self.made.values()]


def run(main):
    asyncio.run(main())


def test_the_engine_with_the_fewest_calls_is_asked():
    async def main():
        plant = Plant("a", "b", "c")
        await plant.engines.ask()
        for name, calls in zip("abc", (5, 2, 4), strict=True):
            plant.made[name].in_flight = calls

        plant.begin(4)

        assert [client.in_flight for client in plant.made.values()] == [5, 5, 5]
        assert plant.begun() == [0, 3, 1]

    run(main)


def test_equal_engines_are_asked_in_turn():
    async def main():
        plant = Plant("a", "b", "c")
        await plant.engines.ask()

        for _ in range(6):
            plant.begin()
            for client in plant.made.values():
                client.in_flight = 0

        assert plant.begun() == [2, 2, 2]

    run(main)


def test_an_engine_that_still_loads_is_asked_only_if_no_other_is_ready():
    async def main():
        plant = Plant("a", "b")
        plant.made["a"].state = "loading"
        await plant.engines.ask()

        plant.begin(3)
        assert plant.begun() == [0, 3]

        plant.made["b"].connected = False
        plant.begin(2)
        assert plant.begun() == [2, 3]

    run(main)


def test_what_one_engine_does_not_have_any_more_is_asked_elsewhere_from_then_on():
    async def main():
        plant = Plant("a", "b")
        await plant.engines.ask()
        plant.made["a"].failures = [EngineErrorCode.LOADING] * 9
        plant.made["b"].in_flight = 100

        for _ in range(3):
            await plant.explain()

        assert plant.begun() == [1, 3]

    run(main)


@pytest.mark.parametrize(("repeatable", "begun"), [(True, 2), (False, 1)])
def test_an_explanation_whose_engine_died_is_repeated_if_it_may_be(repeatable, begun):
    async def main():
        plant = Plant("a", "b", repeatable=repeatable)
        await plant.engines.ask()
        for client in plant.made.values():
            client.failures = [EngineErrorCode.DIED]
        plant.made["b"].failures = [] if repeatable else [EngineErrorCode.DIED]
        plant.made["b"].in_flight = 1

        if repeatable:
            await plant.explain()
        else:
            with pytest.raises(EngineError) as caught:
                await plant.explain()
            assert caught.value.code is EngineErrorCode.NOT_REPEATED

        assert sum(plant.begun()) == begun

    run(main)


def test_the_client_of_a_gone_engine_is_closed_after_its_last_call():
    async def main():
        plant = Plant("a", "b")
        gone = plant.made["a"]
        gone.in_flight = 1
        plant.engines.replace({"b": "b"})

        await plant.engines.ask()
        assert not gone.closed
        gone.in_flight = 0
        await plant.engines.ask()

        assert gone.closed
        assert not plant.made["b"].closed

    run(main)


def test_engines_are_asked_more_often_at_first(monkeypatch):
    pauses = []

    async def main():
        plant = Plant("one")

        async def sleep(seconds):
            pauses.append(seconds)
            if sum(pauses) > 60:
                raise asyncio.CancelledError

        monkeypatch.setattr("inference.gateway.driver.engines.asyncio.sleep", sleep)
        with pytest.raises(asyncio.CancelledError):
            await plant.engines.keep_asking()

    run(main)

    assert pauses[0] == 0.1
    assert pauses == sorted(pauses)
    assert pauses[-1] == 1.0
    assert len(pauses) < 100
