"""Test all three clients with one suite: in-process, socket and blocking."""

import asyncio
from contextlib import asynccontextmanager

import msgspec
import numpy as np
import pytest

from inference.engine.clients import inbox
from inference.engine.clients.blocking_client import BlockingEngineClient
from inference.engine.clients.socket_client import SocketEngineClient
from inference.engine.engine import EngineCore
from inference.engine.in_process import InProcessEngineClient
from inference.engine.runners import runner as runners
from inference.engine.runners.runner import Loaded
from inference.engine.server import EngineServer
from inference.engine.signatures.signature import Column, Layout, Param, Signature
from inference.engine.wire.calls import ExplanationCall, PredictionCall, StreamCall
from inference.engine.wire.errors import EngineError, EngineErrorCode
from inference.engine.wire.messages import (
    MIN_CHUNK_CREDITS,
    Batching,
    ExplainOptions,
    VersionKey,
)
from inference.engine.wire.tensors import Tensor
from tests.inference.engine.fakes import (
    KEY,
    MATRIX,
    POISON,
    FakeRunner,
    FakeStreamRunner,
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
    """Call a blocking client through the asynchronous methods that the suite uses."""

    def __init__(self, client):
        self._client = client

    async def stream(self, *args, **kwargs):
        chunks = self._client.stream(*args, **kwargs)
        try:
            while True:
                reading = asyncio.create_task(asyncio.to_thread(next, chunks, None))
                if (chunk := await asyncio.shield(reading)) is None:
                    return
                yield chunk
        finally:
            if reading.done():
                chunks.close()
            else:
                # A generator cannot be closed while a thread runs it.
                reading.add_done_callback(lambda _: chunks.close())

    def __getattr__(self, name):
        method = getattr(self._client, name)

        async def call(*args, **kwargs):
            return await asyncio.to_thread(method, *args, **kwargs)

        return call


class Echo(FakeRunner):
    """A runner that returns its text column, and the length of each text."""

    def run(self, tensors):
        text = tensors[0].data
        lengths = np.array([len(value) for value in text], dtype=np.int64)
        return (Tensor("text", text), Tensor("length", lengths))


@pytest.fixture(params=["in_process", "socket", "blocking"])
def served(request, tmp_path):
    """Open an engine with `runner`, and a client of each kind."""

    @asynccontextmanager
    async def open_(runner, signature=MATRIX, **fields):
        def load(version, device):
            if version.path == "/broken":
                raise EngineError(EngineErrorCode.LOAD_FAILED, "it is broken")
            return Loaded(runner, signature)

        engine = EngineCore(settings(tmp_path, **fields), load=load)
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

            answer = await client.predict(
                PredictionCall(KEY, rows(1, 2, 3), timeout_s=60)
            )

            assert answer.tensors[0].name == "output"
            assert answer.tensors[0].data.tolist() == [[2, 2], [4, 4], [6, 6]]
            assert answer.batch_rows == 3
            assert answer.queue_us >= 0
            assert answer.compute_us >= 0

    run(main())


def test_a_job_says_that_it_is_one(served):
    async def main():
        async with served(FakeRunner()) as client:
            await load(client)

            await client.predict(PredictionCall(KEY, rows(1), timeout_s=60))
            await client.predict(
                PredictionCall(KEY, rows(1, 2), timeout_s=60, priority="job")
            )

            counters = (await client.status()).counters
            assert (counters["rows"], counters["job_rows"]) == (3, 2)

    run(main())


def test_limits_cross_and_change_without_a_load(served):
    async def main():
        async with served(FakeRunner()) as client:
            await load(client)

            await client.load(
                to_load(batching=Batching(max_batch_rows=2), pinned=False)
            )
            (version,) = (await client.status()).versions

            assert version.state == "ready"
            assert version.batching == Batching(max_batch_rows=2)
            assert not version.pinned

    run(main())


def test_many_calls_at_once_each_get_their_own(served):
    async def main():
        async with served(FakeRunner(), max_batch_rows=7) as client:
            await load(client)

            answers = await asyncio.gather(
                *(
                    client.predict(PredictionCall(KEY, rows(n, -n), timeout_s=20))
                    for n in range(40)
                )
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
                PredictionCall(
                    KEY,
                    (Tensor("text", text), Tensor("size", np.array([1, 2]))),
                    timeout_s=60,
                )
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

            code = await code_of(
                client.predict(PredictionCall(KEY, tensors, timeout_s=60))
            )

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

            code = await code_of(
                client.predict(PredictionCall(KEY, tensors, timeout_s=60))
            )

            assert code is EngineErrorCode.BAD_REQUEST

    run(main())


class Scaled(FakeRunner):
    """A runner that multiplies by the parameter `factor` and counts rows by batch."""

    def run_with(self, tensors, params):
        factor = np.float32((params or {}).get("factor", 2))
        return (Tensor("output", self.run(tensors)[0].data / np.float32(2) * factor),)


STREAMED = msgspec.structs.replace(MATRIX, params=(Param("factor", "int64", 2),))
SCALED = msgspec.structs.replace(MATRIX, params=(Param("factor", "int64", 2),))


def test_parameters_travel_and_part_the_batches(served):
    async def main():
        runner = Scaled()
        async with served(runner, SCALED, inline_ms=0) as client:
            await load(client)
            runner.hold()
            held = asyncio.create_task(
                client.predict(PredictionCall(KEY, rows(0), timeout_s=60))
            )
            await until(runner.started.is_set)

            waiting = [
                asyncio.create_task(
                    client.predict(
                        PredictionCall(KEY, rows(1), timeout_s=60, params=params)
                    )
                )
                for params in ({"factor": 3}, {"factor": 5}, {"factor": 3}, None)
            ]
            while (await client.status()).versions[0].queued_rows < 4:
                await asyncio.sleep(0)
            runner.release()
            answers = await asyncio.gather(*waiting)
            await held

            assert [one.tensors[0].data[0, 0] for one in answers] == [3, 5, 3, 2]
            assert sorted(runner.batches) == [1, 1, 1, 2]

    run(main())


@pytest.mark.parametrize(
    ("signature", "params"), [(SCALED, {"other": 1}), (MATRIX, {"factor": 1})]
)
def test_parameters_that_the_model_has_not_are_a_bad_request(served, signature, params):
    async def main():
        async with served(Scaled(), signature) as client:
            await load(client)

            code = await code_of(
                client.predict(
                    PredictionCall(KEY, rows(1), timeout_s=60, params=params)
                )
            )

            assert code is EngineErrorCode.BAD_REQUEST

    run(main())


class HalfASurrogate(FakeRunner):
    def run(self, tensors):
        values = ["\ud800" if value else "fine" for value in tensors[0].data[:, 0]]
        return (Tensor("text", np.array(values, dtype=object)),)


def test_an_answer_that_cannot_be_written_fails_its_own_request_only(served):
    async def main():
        async with served(HalfASurrogate()) as client:
            await load(client)

            bad = client.predict(PredictionCall(KEY, rows(1), timeout_s=60))
            good = client.predict(PredictionCall(KEY, rows(0), timeout_s=60))
            codes = await asyncio.gather(code_of(bad), good)

            assert codes[0] is EngineErrorCode.MODEL_ERROR
            assert codes[1].tensors[0].data.tolist() == ["fine"]

    run(main())


def test_a_model_that_raises_is_a_model_error(served):
    async def main():
        async with served(FakeRunner()) as client:
            await load(client)

            code = await code_of(
                client.predict(
                    PredictionCall(KEY, rows(POISON), timeout_s=60, request_id="req_1")
                )
            )

            assert code is EngineErrorCode.MODEL_ERROR
            [failure] = (await client.status()).versions[0].failures
            assert failure.request_ids == ("req_1",)

    run(main())


def test_unknown_versions_are_not_loaded(served):
    async def main():
        async with served(FakeRunner()) as client:
            code = await code_of(
                client.predict(PredictionCall(KEY, rows(1), timeout_s=60))
            )

            assert code is EngineErrorCode.NOT_LOADED

    run(main())


def test_a_failed_load_says_why_and_refuses_calls(served):
    async def main():
        async with served(FakeRunner()) as client:
            await load(client, path="/broken")

            (version,) = (await client.status()).versions
            code = await code_of(
                client.predict(PredictionCall(KEY, rows(1), timeout_s=60))
            )

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

            code = await code_of(
                client.predict(PredictionCall(KEY, rows(1), timeout_s=60))
            )

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
                code = await code_of(
                    client.predict(PredictionCall(KEY, rows(1), timeout_s=0.05))
                )
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
            first = asyncio.create_task(
                client.predict(PredictionCall(KEY, rows(1), timeout_s=60))
            )
            await until(runner.started.is_set)
            second = asyncio.create_task(
                client.predict(PredictionCall(KEY, rows(1, 2), timeout_s=60))
            )
            while (await client.status()).versions[0].queued_rows < 2:
                await asyncio.sleep(0)

            with pytest.raises(EngineError) as caught:
                await client.predict(PredictionCall(KEY, rows(1), timeout_s=60))
            runner.release()
            await asyncio.gather(first, second)

            assert caught.value.code is EngineErrorCode.OVERLOADED
            assert caught.value.retry_after_ms is not None
            assert caught.value.retryable

    run(main())


def test_a_customer_s_own_share_is_full_before_the_queue_is(served):
    async def main():
        runner = FakeRunner()
        async with served(runner, inline_ms=0, max_queue_rows=4) as client:
            await load(client)
            runner.hold()

            async def ask(customer_id):
                await client.predict(
                    PredictionCall(KEY, rows(1), timeout_s=60, customer_id=customer_id)
                )

            async def queue(customer_id, queued_rows):
                call = asyncio.create_task(ask(customer_id))
                while (await client.status()).versions[0].queued_rows < queued_rows:
                    await asyncio.sleep(0)
                return call

            calls = [asyncio.create_task(ask(1))]
            await until(runner.started.is_set)
            calls += [await queue(1, 1), await queue(1, 2)]

            with pytest.raises(EngineError) as caught:
                await ask(1)
            calls.append(await queue(2, 3))
            runner.release()
            await asyncio.gather(*calls)

            assert caught.value.code is EngineErrorCode.OVERLOADED
            assert caught.value.of_customer

    run(main())


def stream(client, *values, timeout_s=60, **options):
    return client.stream(StreamCall(KEY, rows(*values), timeout_s=timeout_s, **options))


def test_streams_give_their_chunks_in_order(served):
    async def main():
        runner = FakeStreamRunner(count=200)
        async with served(runner, STREAMED) as client:
            await load(client)

            chunks = [c async for c in stream(client, 7, params={"factor": 3})]

            assert [chunk["index"] for chunk in chunks] == list(range(7, 207))
            assert chunks[0]["text"] == "ü"
            assert runner.params == {"factor": 3}
            assert runner.closed.is_set()
            counters = (await client.status()).counters
            assert (counters["streams"], counters["stream_chunks"]) == (1, 200)

    run(main())


def test_a_model_makes_no_more_chunks_than_are_read(served):
    async def main():
        runner = FakeStreamRunner(count=10_000)
        async with served(runner, STREAMED) as client:
            await load(client)
            chunks = stream(client, 0, timeout_s=20)

            for _ in range(100):
                await anext(chunks)
            await asyncio.sleep(0.05)

            assert 100 <= runner.made <= 100 + inbox.WINDOW // MIN_CHUNK_CREDITS
            await chunks.aclose()

    run(main())


def test_large_chunks_are_made_one_at_a_time(served):
    class Large(FakeStreamRunner):
        def stream(self, tensors, params):
            while True:
                self.made += 1
                yield "x" * 1_000_000

    async def main():
        runner = Large()
        async with served(runner, STREAMED) as client:
            await load(client)
            chunks = stream(client, 0)

            for _ in range(3):
                await anext(chunks)
            await asyncio.sleep(0.05)

            # What is read is passed on before another is made.
            assert runner.made == 3
            await chunks.aclose()

    run(main())


def test_a_reader_that_leaves_closes_the_generator_within_a_second(served):
    async def main():
        runner = FakeStreamRunner(count=10_000)
        async with served(runner, STREAMED) as client:
            await load(client)
            chunks = stream(client, 0, timeout_s=120)
            await anext(chunks)

            await chunks.aclose()

            assert await asyncio.to_thread(runner.closed.wait, 60)
            async with asyncio.timeout(30):
                while (await client.status()).counters["running_streams"]:
                    await asyncio.sleep(0.001)
            # The connection is as good as before.
            await client.predict(PredictionCall(KEY, rows(1), timeout_s=60))

    run(main())


def test_a_cancelled_reader_closes_the_generator(served):
    async def main():
        runner = FakeStreamRunner(count=10_000)
        async with served(runner, STREAMED) as client:
            await load(client)
            runner.hold()
            chunks = stream(client, 0, timeout_s=120, params={"factor": 3})
            waiting = asyncio.create_task(anext(chunks))
            # Into the stream, where nothing has come yet.
            while runner.params is None:
                await asyncio.sleep(0.001)

            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
            runner.release()
            await chunks.aclose()

            assert await asyncio.to_thread(runner.closed.wait, 60)

    run(main())


def test_a_stream_that_takes_too_long_is_a_deadline(served):
    async def main():
        runner = FakeStreamRunner()
        async with served(runner, STREAMED) as client:
            await load(client)
            runner.hold()
            try:
                code = await code_of(anext(stream(client, 0, timeout_s=0.05)))
            finally:
                runner.release()

            assert code is EngineErrorCode.DEADLINE_EXCEEDED
            assert await asyncio.to_thread(runner.closed.wait, 60)

    run(main())


def test_a_model_that_raises_fails_its_stream_after_what_it_gave(served):
    class Breaks(FakeStreamRunner):
        def stream(self, tensors, params):
            yield 1
            raise SystemExit("no")

    async def main():
        async with served(Breaks(), STREAMED) as client:
            await load(client)
            chunks = stream(client, 0)

            assert await anext(chunks) == 1
            assert await code_of(anext(chunks)) is EngineErrorCode.MODEL_ERROR

    run(main())


@pytest.mark.parametrize("chunk", [object(), "\ud800", "x" * 2_000_000, 2**80])
def test_chunks_that_cannot_be_sent_fail_the_stream(served, chunk):
    class Odd(FakeStreamRunner):
        def stream(self, tensors, params):
            yield chunk

    async def main():
        async with served(Odd(), STREAMED) as client:
            await load(client)

            code = await code_of(anext(stream(client, 0)))

            assert code is EngineErrorCode.MODEL_ERROR

    run(main())


def test_streams_beyond_the_limit_are_refused_with_advice(served):
    async def main():
        runner = FakeStreamRunner(count=10_000)
        async with served(runner, STREAMED, max_streams=2) as client:
            await load(client)
            running = [
                stream(client, 0, timeout_s=120, customer_id=customer)
                for customer in range(2)
            ]
            for chunks in running:
                await anext(chunks)

            with pytest.raises(EngineError) as caught:
                await anext(stream(client, 0))

            assert caught.value.code is EngineErrorCode.OVERLOADED
            assert caught.value.retry_after_ms == 1000
            for chunks in running:
                await chunks.aclose()
            async with asyncio.timeout(30):
                while (await client.status()).counters["running_streams"]:
                    await asyncio.sleep(0.001)
            await anext(stream(client, 0))

    run(main())


@pytest.mark.parametrize(
    ("runner", "values", "params"),
    [
        (FakeRunner, [1], None),
        (FakeStreamRunner, [1, 2], None),
        (FakeStreamRunner, [1], {"other": 1}),
    ],
)
def test_streams_that_cannot_be_are_a_bad_request(served, runner, values, params):
    async def main():
        async with served(runner(), STREAMED) as client:
            await load(client)

            code = await code_of(anext(stream(client, *values, params=params)))

            assert code is EngineErrorCode.BAD_REQUEST

    run(main())


def test_a_version_that_is_unloaded_finishes_its_streams(served):
    async def main():
        runner = FakeStreamRunner(count=100)
        async with served(runner, STREAMED) as client:
            await load(client)
            chunks = stream(client, 0)
            await anext(chunks)

            await client.unload(KEY)

            assert len([chunk async for chunk in chunks]) == 99

    run(main())


def test_explanations_come_from_the_plug_in(served):
    async def main():
        plugin = ("tests.inference.engine.explainer:explain",)
        async with served(FakeRunner(), plugins=plugin) as client:
            await load(client)

            answer = await client.explain(
                ExplanationCall(
                    KEY, rows(1, 2), options=ExplainOptions(samples=3), timeout_s=5
                )
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
                client.explain(
                    ExplanationCall(
                        KEY, rows(1), options=ExplainOptions(), timeout_s=60
                    )
                )
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
                client.explain(
                    ExplanationCall(KEY, rows(1), options=options, timeout_s=60)
                )
            )

            assert got is code
            await client.explain(
                ExplanationCall(KEY, rows(1), options=ExplainOptions(), timeout_s=60)
            )

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
            code = await code_of(
                face.predict(PredictionCall(KEY, rows(1), timeout_s=60))
            )
            assert code is EngineErrorCode.CONNECTION_LOST
            code = await code_of(anext(stream(face, 1, timeout_s=60)))
            assert code is EngineErrorCode.CONNECTION_LOST

        closed = client.close()
        if closed is not None:
            await closed

    run(main())


def test_the_loader_is_the_real_one_by_default(tmp_path):
    async def main():
        engine = EngineCore(settings(tmp_path))
        engine.load(to_load(path=str(tmp_path)))
        await until(lambda: engine.status().versions[0].state == "failed")

        assert "No runner reads the flavors fake" in engine.status().versions[0].error
        assert list(runners.RUNNERS) == [
            "torch_export",
            "torch_script",
            "torch_module",
            "pyfunc",
        ]
        engine.close()

    run(main())
