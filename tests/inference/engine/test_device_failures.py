"""Test that an engine reports a failed device, and that its process ends."""

import asyncio
import time

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from inference.engine.devices import opening
from inference.engine.engine import EngineCore
from inference.engine.in_process import InProcessEngineClient
from inference.engine.runners import runner as runners
from inference.engine.runners.runner import Loaded
from inference.engine.runners.torch_runner import TorchRunner
from inference.engine.settings import EngineSettings
from inference.engine.signatures.signature import Layout, Signature
from inference.engine.wire.calls import PredictionCall
from inference.engine.wire.errors import EngineError, EngineErrorCode
from tests import torture
from tests.inference.engine.devices.fake_device import FakeDevice
from tests.inference.engine.fakes import KEY, ready, rows, run, teach, to_load

SIGNATURE = Signature(layout=Layout.MATRIX, shape=(2,))


class Doubler(torch.nn.Module):
    def forward(self, rows):
        return rows * 2


@pytest.fixture
def device():
    made = FakeDevice(name="fake:failing")
    opening.register(made)
    yield made
    made.close()


def make_engine(tmp_path, device, *, fatal, load=None):
    def load_doubler(version, name):
        loaded = TorchRunner(Doubler(), name, SIGNATURE)
        loaded.warm_up(rows(1, 2))
        return Loaded(loaded, SIGNATURE, loaded.depth)

    settings = EngineSettings(
        home=str(tmp_path), device=device.name, plugins=(), memory_budget_bytes=10**9
    )
    return EngineCore(
        settings, load=load or load_doubler, on_fatal=lambda: fatal.append(1)
    )


def test_a_batch_too_large_for_the_device_is_halved(tmp_path, device):
    async def main():
        engine = make_engine(tmp_path, device, fatal=[])
        engine.load(to_load())
        await ready(engine)
        client = InProcessEngineClient(engine)
        device.most_rows = 3

        answer = await client.predict(
            PredictionCall(KEY, rows(1, 2, 3, 4, 5), timeout_s=5)
        )

        assert answer.tensors[0].data[:, 0].tolist() == [2, 4, 6, 8, 10]
        assert engine.status().counters["memory_halvings"] >= 1

    run(main())


def test_where_nothing_fits_callers_are_told_when_to_come_back(tmp_path, device):
    async def main():
        fatal = []
        engine = make_engine(tmp_path, device, fatal=fatal)
        engine.load(to_load())
        await ready(engine)
        device.most_rows = 0

        with pytest.raises(EngineError) as caught:
            await InProcessEngineClient(engine).predict(
                PredictionCall(KEY, rows(1), timeout_s=5)
            )

        assert caught.value.code is EngineErrorCode.OVERLOADED
        assert caught.value.retry_after_ms
        assert fatal == []

    run(main())


def test_a_sticky_error_ends_the_engine_and_a_plain_one_does_not(tmp_path, device):
    async def main():
        fatal = []
        engine = make_engine(tmp_path, device, fatal=fatal)
        engine.load(to_load())
        await ready(engine)
        client = InProcessEngineClient(engine)

        device.error = RuntimeError("an ordinary mistake")
        with pytest.raises(EngineError):
            await client.predict(PredictionCall(KEY, rows(1), timeout_s=5))
        assert fatal == []

        device.error = torch.AcceleratorError("CUDA error: device-side assert")
        with pytest.raises(EngineError):
            await client.predict(PredictionCall(KEY, rows(1), timeout_s=5))
        assert fatal

    run(main())


def test_a_sticky_error_while_loading_ends_the_engine_too(tmp_path, device):
    async def main():
        fatal = []

        def load(version, name):
            try:
                raise torch.AcceleratorError("CUDA error: unspecified launch failure")
            except RuntimeError as error:
                raise runners.EngineError(
                    EngineErrorCode.LOAD_FAILED, "was not loaded"
                ) from error

        engine = make_engine(tmp_path, device, fatal=fatal, load=load)
        engine.load(to_load())
        while not fatal:
            await asyncio.sleep(0.001)

        [version] = engine.status().versions
        assert version.state == "failed"

    run(main())


def test_the_status_names_the_device_its_memory_and_what_it_counts(tmp_path, device):
    async def main():
        engine = make_engine(tmp_path, device, fatal=[])
        engine.load(to_load())
        await ready(engine)
        await InProcessEngineClient(engine).predict(
            PredictionCall(KEY, rows(1), timeout_s=5)
        )

        status = engine.status()

        assert status.device_status.title == "Fake accelerator"
        assert status.device_status.total_bytes == 1000
        assert status.counters["graphs_captured"] == 4
        assert status.counters["graph_batches"] >= 1
        assert status.versions[0].notes == ("precision float32",)

    run(main())


def test_a_device_that_fails_when_asked_for_its_memory_ends_the_engine(
    tmp_path, device, monkeypatch
):
    def memory():
        raise torch.AcceleratorError("CUDA error: an illegal memory access")

    async def main():
        fatal = []
        monkeypatch.setattr(device, "memory", memory)

        status = make_engine(tmp_path, device, fatal=fatal).status()

        assert status.device_status is None
        assert fatal == [1]

    run(main())


def test_two_batches_are_in_flight(tmp_path, device, monkeypatch):
    """The second batch is copied in while the device computes the first."""
    compute = device.compute

    def held(kind, batch_rows, work):
        def until_copied():
            deadline = time.monotonic() + 20
            while batch_rows == 4 and ("copy_in", 1, "begin") not in device.events:
                assert time.monotonic() < deadline, device.events
                time.sleep(0.001)
            return work()

        return compute(kind, batch_rows, until_copied)

    async def main():
        engine = make_engine(tmp_path, device, fatal=[])
        engine.load(to_load())
        await ready(engine)
        teach(engine)
        client = InProcessEngineClient(engine)
        device.events.clear()
        monkeypatch.setattr(device, "compute", held)

        first = asyncio.ensure_future(
            client.predict(PredictionCall(KEY, rows(1, 2, 3), timeout_s=30))
        )
        while ("replay", 4, "begin") not in device.events:
            await asyncio.sleep(0.001)
        second = asyncio.ensure_future(
            client.predict(PredictionCall(KEY, rows(4), timeout_s=30))
        )
        answers = await asyncio.gather(first, second)

        assert [a.tensors[0].data[0, 0] for a in answers] == [2, 8]

    run(main())


def test_the_event_loop_never_waits_for_a_device_that_works_by_itself(tmp_path, device):
    async def main():
        engine = make_engine(tmp_path, device, fatal=[])
        engine.load(to_load())
        await ready(engine)
        client = InProcessEngineClient(engine)

        for _ in range(20):
            await client.predict(PredictionCall(KEY, rows(1), timeout_s=5))

        assert engine.status().counters["batches"] == 20
        assert engine.status().counters["inline_batches"] == 0

    run(main())


@settings(max_examples=torture.examples(15), deadline=None)
@given(
    requests=st.lists(
        st.tuples(st.integers(1, 10), st.booleans()), min_size=4, max_size=40
    ),
    most_rows=st.sampled_from([None, 3]),
)
def test_answers_are_never_mixed_with_two_batches_in_flight(
    tmp_path_factory, requests, most_rows
):
    async def main():
        made = FakeDevice(name="fake:property", copy_s=0.0005)
        opening.register(made)
        engine = make_engine(tmp_path_factory.mktemp("home"), made, fatal=[])
        engine.load(to_load())
        await ready(engine)
        made.most_rows = most_rows
        client = InProcessEngineClient(engine)

        async def ask(index, count, leaves):
            values = [1000 * index + row for row in range(count)]
            call = asyncio.ensure_future(
                client.predict(PredictionCall(KEY, rows(*values), timeout_s=20))
            )
            if leaves:
                await asyncio.sleep(0.001)
                call.cancel()
                return
            answer = await call
            got = answer.tensors[0].data[:, 0].tolist()
            assert got == [2.0 * value for value in values]

        await asyncio.gather(
            *(ask(index, *request) for index, request in enumerate(requests))
        )
        engine.close()
        made.close()

    run(main())
