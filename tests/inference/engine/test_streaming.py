import asyncio

import pytest
import structlog

from inference.engine.clients.inbox import WINDOW
from inference.engine.streaming import Streams
from inference.engine.wire.errors import EngineError, EngineErrorCode
from tests.inference.engine.fakes import FakeStreamRunner, rows, run
from tests.waiting import until


class Reader:
    """A StreamReader that records its calls."""

    def __init__(self):
        self.chunks = []
        self.end = None
        self.error = None

    def chunk(self, stream_id, chunk):
        self.chunks.append(bytes(chunk))

    def ended(self, stream_id, chunks):
        self.end = chunks

    def stream_failed(self, stream_id, error):
        self.error = error


def start(
    streams,
    runner,
    reader,
    *,
    credits=WINDOW,  # noqa: A002 - its name
    timeout_s=10.0,
    customer_id=1,
):
    return streams.start(
        1,
        reader,
        runner,
        rows(0),
        None,
        credits=credits,
        timeout_s=timeout_s,
        customer_id=customer_id,
        name="untidy v2",
    )


async def threads_gone(streams):
    await until(lambda: not len(streams))


def test_a_stream_ends_after_its_chunks():
    async def main():
        streams, reader = Streams(1, loop=asyncio.get_running_loop()), Reader()

        start(streams, FakeStreamRunner(count=2), reader)
        await threads_gone(streams)

        assert len(reader.chunks) == reader.end == 2
        assert streams.unanswered == 0

    run(main())


def test_a_model_that_hangs_fails_in_time_and_keeps_its_place():
    async def main():
        streams, reader = Streams(1, loop=asyncio.get_running_loop()), Reader()
        runner = FakeStreamRunner()
        runner.hold()

        start(streams, runner, reader, timeout_s=0.02)
        await until(lambda: reader.error is not None)

        assert reader.error.code is EngineErrorCode.DEADLINE_EXCEEDED
        assert (len(streams), streams.unanswered) == (1, 0)
        with pytest.raises(EngineError) as caught:
            start(streams, runner, Reader())
        assert caught.value.code is EngineErrorCode.OVERLOADED
        runner.release()
        await threads_gone(streams)
        assert runner.closed.is_set()

    run(main())


def test_a_cancelled_stream_tells_nothing_more_and_waits_for_no_credit():
    async def main():
        streams, reader = Streams(1, loop=asyncio.get_running_loop()), Reader()
        runner = FakeStreamRunner(count=100)
        stream = start(streams, runner, reader, credits=1)
        await until(lambda: len(reader.chunks) == 1)

        stream.cancel()
        await threads_gone(streams)

        assert runner.closed.is_set()
        assert (reader.end, reader.error, len(reader.chunks)) == (None, None, 1)

    run(main())


def test_credits_that_are_no_credits_are_ignored():
    async def main():
        streams, reader = Streams(1, loop=asyncio.get_running_loop()), Reader()
        runner = FakeStreamRunner()

        stream = start(streams, runner, reader, credits=-5)
        stream.grant(-3)
        await asyncio.sleep(0.02)
        assert runner.made == 0
        stream.grant(WINDOW)
        await threads_gone(streams)

        assert reader.end == 3

    run(main())


def test_a_chunk_takes_its_bytes_of_the_credits():
    class Large(FakeStreamRunner):
        def stream(self, tensors, params):
            while True:
                self.made += 1
                yield "x" * 20_000

    async def main():
        streams, reader = Streams(1, loop=asyncio.get_running_loop()), Reader()
        runner = Large()

        stream = start(streams, runner, reader, credits=50_000)
        await until(lambda: len(reader.chunks) == 3)
        stream.grant(10_000)
        await asyncio.sleep(0.02)
        assert runner.made == 3
        stream.grant(1_000)
        await until(lambda: runner.made == 4)

        stream.cancel()
        await threads_gone(streams)

    run(main())


def test_a_customer_who_floods_leaves_streams_for_others():
    async def main():
        streams = Streams(16, loop=asyncio.get_running_loop())
        runner = FakeStreamRunner(count=1)
        runner.hold()
        accepted, refused = 0, []
        for _ in range(16):
            try:
                start(streams, runner, Reader(), customer_id=1)
                accepted += 1
            except EngineError as error:
                refused.append(error)
        once = Reader()

        start(streams, runner, once, customer_id=2)

        assert (accepted, len(refused)) == (8, 8)
        assert {error.code for error in refused} == {EngineErrorCode.OVERLOADED}
        assert streams.counters["refused_streams"] == 8
        runner.release()
        await threads_gone(streams)
        assert once.end == 1
        start(streams, runner, Reader(), customer_id=1)
        await threads_gone(streams)

    run(main())


class Untold(Exception):
    def __str__(self):
        raise RuntimeError("it has no text")


@pytest.mark.parametrize(
    ("cause", "log_values", "reason"),
    [
        (ValueError("no answer for 1234.5"), False, "no answer for […]"),
        (ValueError("no answer for 1234.5"), True, "no answer for 1234.5"),
        (Untold(), False, ""),
    ],
)
def test_a_stream_that_fails_says_why_without_values(cause, log_values, reason):
    class Failing(FakeStreamRunner):
        def stream(self, tensors, params):
            yield 1
            raise cause

    async def main():
        streams, reader = Streams(1, loop=asyncio.get_running_loop()), Reader()

        with structlog.testing.capture_logs() as logged:
            streams.start(
                1,
                reader,
                Failing(),
                rows(1234.5),
                None,
                credits=WINDOW,
                timeout_s=10.0,
                log_values=log_values,
            )
            await threads_gone(streams)

        assert logged[0]["reason"] == reason
        assert reader.error.message == f"the model raised {type(cause).__name__}: " + (
            reason
        )

    run(main())


def test_a_model_that_fails_to_clean_up_fails_its_stream_only():
    class Untidy(FakeStreamRunner):
        def stream(self, tensors, params):
            try:
                yield 1
                yield 2
            finally:
                raise RuntimeError("cannot clean up")

    async def main():
        streams, reader = Streams(1, loop=asyncio.get_running_loop()), Reader()

        with structlog.testing.capture_logs() as logged:
            start(streams, Untidy(), reader)
            await threads_gone(streams)

        assert reader.error.code is EngineErrorCode.MODEL_ERROR
        [failed] = logged
        assert failed["reason"] == "cannot clean up"
        assert failed["version"] == "untidy v2"
        assert 'raise RuntimeError("cannot clean up")' in failed["trace"]

    run(main())


def test_threads_end_although_the_loop_is_gone():
    runner = FakeStreamRunner(count=1000)

    async def main():
        streams = Streams(1, loop=asyncio.get_running_loop())
        start(streams, runner, Reader(), credits=1)
        await until(lambda: runner.made == 1)
        streams.close()

    run(main())

    assert runner.closed.wait(60)
