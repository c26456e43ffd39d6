"""One suite over the three clients: an in-process, a socket and a blocking one."""

import asyncio
from contextlib import asynccontextmanager

import numpy as np
import pytest

from inference.engine import runner as runners
from inference.engine.client import (
    BlockingEngineClient,
    InProcessEngineClient,
    SocketEngineClient,
    Tensor,
)
from inference.engine.engine import Engine
from inference.engine.errors import EngineError, EngineErrorCode
from inference.engine.messages import ExplainOptions, VersionKey
from inference.engine.runner import Loaded
from inference.engine.server import EngineServer
from inference.engine.signature import Column, Layout, Signature
from tests.inference.engine.fakes import (
    KEY,
    MATRIX,
    POISON,
    FakeRunner,
    rows,
    run,
    settings,
    to_load,
    until,
)

TABLE = Signature(
    layout=Layout.TABLE,
    columns=(Column("text", dtype="str"), Column("size", dtype="int64")),
)


class Threaded:
    """Gives a blocking client the asynchronous face that the suite speaks."""

    def __init__(self, client):
        self._client = client

    def __getattr__(self, name):
        method = getattr(self._client, name)

        async def call(*args, **kwargs):
            return await asyncio.to_thread(method, *args, **kwargs)

        return call


class Echo(FakeRunner):
    """Gives its text column back, and the length of each."""

    def run(self, tensors):
        text = tensors[0].data
        lengths = np.array([len(value) for value in text], dtype=np.int64)
        return (Tensor("text", text), Tensor("length", lengths))


@pytest.fixture(params=["in_process", "socket", "blocking"])
def served(request, tmp_path):
    """Open an engine over `runner` and a client of each kind to it."""

    @asynccontextmanager
    async def open_(runner, signature=MATRIX, **fields):
        def load(version, device):
            if version.path == "/broken":
                raise EngineError(EngineErrorCode.LOAD_FAILED, "it is broken")
            return Loaded(runner, signature)

        engine = Engine(settings(tmp_path, **fields), load=load)
        path = tmp_path / "run" / "engine.sock"
        server = EngineServer(engine, path, clock=engine.clock)
        await server.start()
        socket_client = SocketEngineClient(path)
        blocking_client = BlockingEngineClient(path)
        clients = {
            "in_process": InProcessEngineClient(engine),
            "socket": socket_client,
            "blocking": Threaded(blocking_client),
        }
        try:
            yield clients[request.param]
        finally:
            await socket_client.close()
            blocking_client.close()
            await server.stop(1)
            engine.close()

    return open_


async def load(client, *args, **kwargs):
    await client.load(to_load(*args, **kwargs))
    while any(v.state == "loading" for v in (await client.status()).versions):
        await asyncio.sleep(0.001)


async def code_of(call):
    with pytest.raises(EngineError) as caught:
        await call
    return caught.value.code


def test_predictions_come_back_in_order(served):
    async def main():
        async with served(FakeRunner()) as client:
            await load(client)

            answer = await client.predict(KEY, rows(1, 2, 3), timeout_s=5)

            assert answer.tensors[0].name == "output"
            assert answer.tensors[0].data.tolist() == [[2, 2], [4, 4], [6, 6]]
            assert answer.batch_rows == 3
            assert answer.queue_us >= 0
            assert answer.compute_us >= 0

    run(main())


def test_many_calls_at_once_each_get_their_own(served):
    async def main():
        async with served(FakeRunner(), max_batch_rows=7) as client:
            await load(client)

            answers = await asyncio.gather(
                *(client.predict(KEY, rows(n, -n), timeout_s=20) for n in range(40))
            )

            firsts = [answer.tensors[0].data[:, 0].tolist() for answer in answers]
            assert firsts == [[2 * n, -2 * n] for n in range(40)]

    run(main())


def test_tables_with_text_cross_both_ways(served):
    async def main():
        async with served(Echo(), TABLE) as client:
            await load(client)
            text = np.array(["Grüße", ""], dtype=object)

            answer = await client.predict(
                KEY,
                (Tensor("text", text), Tensor("size", np.array([1, 2]))),
                timeout_s=5,
            )

            assert answer.tensors[0].data.tolist() == ["Grüße", ""]
            assert answer.tensors[1].data.tolist() == [5, 0]

    run(main())


@pytest.mark.parametrize(
    "tensors",
    [
        (Tensor("input", np.zeros((1, 3), np.float32)),),
        (Tensor("input", np.zeros((1, 2), np.float64)),),
        (Tensor("input", np.zeros((0, 2), np.float32)),),
        (Tensor("input", np.zeros((1, 2), np.complex64)),),
        (Tensor("input", np.array([["a", 1]], dtype=object)),),
        (Tensor("input", np.array([["a", "\ud800"]], dtype=object)),),
        (*rows(1), *rows(1, 2)),
        (),
    ],
)
def test_tensors_that_do_not_fit_are_a_bad_request(served, tensors):
    async def main():
        async with served(FakeRunner()) as client:
            await load(client)

            code = await code_of(client.predict(KEY, tensors, timeout_s=5))

            assert code is EngineErrorCode.BAD_REQUEST
            assert (await client.status()).counters["malformed_frames"] == 0

    run(main())


@pytest.mark.parametrize(
    "tensors",
    [
        (Tensor("text", np.array(["a"], dtype=object)),),
        (Tensor("text", np.array([1])), Tensor("size", np.array([1]))),
        (
            Tensor("text", np.array(["a"], dtype=object)),
            Tensor("size", np.array([1])),
            Tensor("other", np.array([1])),
        ),
    ],
)
def test_tables_that_do_not_fit_are_a_bad_request(served, tensors):
    async def main():
        async with served(Echo(), TABLE) as client:
            await load(client)

            code = await code_of(client.predict(KEY, tensors, timeout_s=5))

            assert code is EngineErrorCode.BAD_REQUEST

    run(main())


def test_a_model_that_raises_is_a_model_error(served):
    async def main():
        async with served(FakeRunner()) as client:
            await load(client)

            code = await code_of(client.predict(KEY, rows(POISON), timeout_s=5))

            assert code is EngineErrorCode.MODEL_ERROR

    run(main())


def test_unknown_versions_are_not_loaded(served):
    async def main():
        async with served(FakeRunner()) as client:
            code = await code_of(client.predict(KEY, rows(1), timeout_s=5))

            assert code is EngineErrorCode.NOT_LOADED

    run(main())


def test_a_failed_load_says_why_and_refuses_calls(served):
    async def main():
        async with served(FakeRunner()) as client:
            await load(client, path="/broken")

            (version,) = (await client.status()).versions
            code = await code_of(client.predict(KEY, rows(1), timeout_s=5))

            assert (version.state, version.error) == ("failed", "it is broken")
            assert code is EngineErrorCode.LOAD_FAILED

    run(main())


def test_unloaded_versions_are_gone(served):
    async def main():
        runner = FakeRunner()
        async with served(runner) as client:
            await load(client)
            await client.unload(KEY)
            await client.unload(VersionKey("never there", 1))

            code = await code_of(client.predict(KEY, rows(1), timeout_s=5))

            assert code is EngineErrorCode.NOT_LOADED
            assert (await client.status()).versions == ()
            await until(runner.unloaded.is_set)

    run(main())


def test_no_answer_in_time_is_a_deadline(served):
    async def main():
        runner = FakeRunner()
        async with served(runner, inline_ms=0) as client:
            await load(client)
            runner.hold()
            try:
                code = await code_of(client.predict(KEY, rows(1), timeout_s=0.05))
            finally:
                runner.release()

            assert code is EngineErrorCode.DEADLINE_EXCEEDED

    run(main())


def test_a_full_queue_is_overload_with_advice(served):
    async def main():
        runner = FakeRunner()
        async with served(runner, inline_ms=0, max_queue_rows=2) as client:
            await load(client)
            runner.hold()
            first = asyncio.create_task(client.predict(KEY, rows(1), timeout_s=5))
            await until(runner.started.is_set)
            second = asyncio.create_task(client.predict(KEY, rows(1, 2), timeout_s=5))
            while (await client.status()).versions[0].queued_rows < 2:
                await asyncio.sleep(0)

            with pytest.raises(EngineError) as caught:
                await client.predict(KEY, rows(1), timeout_s=5)
            runner.release()
            await asyncio.gather(first, second)

            assert caught.value.code is EngineErrorCode.OVERLOADED
            assert caught.value.retry_after_ms is not None
            assert caught.value.retryable

    run(main())


def test_explanations_come_from_the_plug_in(served):
    async def main():
        plugin = ("tests.inference.engine.explainer:explain",)
        async with served(FakeRunner(), plugins=plugin) as client:
            await load(client)

            answer = await client.explain(
                KEY, rows(1, 2), options=ExplainOptions(samples=3), timeout_s=5
            )

            assert [e.base_value for e in answer.explanations] == [2.0, 4.0]
            assert answer.samples == 6
            assert answer.svg is None

    run(main())


def test_without_a_plug_in_nothing_is_explainable(served):
    async def main():
        async with served(FakeRunner()) as client:
            await load(client)

            code = await code_of(
                client.explain(KEY, rows(1), options=ExplainOptions(), timeout_s=5)
            )

            assert code is EngineErrorCode.NOT_EXPLAINABLE

    run(main())


@pytest.mark.parametrize(
    ("target", "code"),
    [
        ("refuse", EngineErrorCode.BAD_REQUEST),
        ("crash", EngineErrorCode.MODEL_ERROR),
    ],
)
def test_an_explainer_that_raises_fails_that_call_only(served, target, code):
    async def main():
        plugin = ("tests.inference.engine.explainer:explain",)
        async with served(FakeRunner(), plugins=plugin) as client:
            await load(client)

            options = ExplainOptions(target=target)
            got = await code_of(
                client.explain(KEY, rows(1), options=options, timeout_s=5)
            )

            assert got is code
            await client.explain(KEY, rows(1), options=ExplainOptions(), timeout_s=5)

    run(main())


def test_the_status_names_the_device_and_its_memory(served):
    async def main():
        async with served(FakeRunner()) as client:
            status = await client.status()

            assert status.device == "cpu"
            assert status.memory_bytes > 10_000_000
            assert status.counters["malformed_frames"] == 0

    run(main())


@pytest.mark.parametrize("kind", [SocketEngineClient, BlockingEngineClient])
def test_an_absent_engine_is_a_lost_connection_at_once(tmp_path, kind):
    async def main():
        client = kind(tmp_path / "nobody.sock")
        face = client if kind is SocketEngineClient else Threaded(client)

        for _ in range(3):
            code = await code_of(face.predict(KEY, rows(1), timeout_s=60))
            assert code is EngineErrorCode.CONNECTION_LOST

        closed = client.close()
        if closed is not None:
            await closed

    run(main())


def test_the_loader_is_the_real_one_by_default(tmp_path):
    async def main():
        engine = Engine(settings(tmp_path))
        engine.load(to_load(path=str(tmp_path)))
        await until(lambda: engine.status().versions[0].state == "failed")

        assert "No runner reads the flavors fake" in engine.status().versions[0].error
        assert runners.RUNNERS.keys() == {"torch_export", "pyfunc"}
        engine.close()

    run(main())
