import asyncio

import msgspec
import pytest

from inference.engine.clients import inbox
from inference.engine.clients.inbox import WINDOW, Inbox
from inference.engine.wire.errors import EngineError, EngineErrorCode
from inference.engine.wire.messages import MIN_CHUNK_CREDITS, StreamChunk, StreamEnd
from tests.inference.engine.fakes import run


def chunk(value):
    return StreamChunk(1, msgspec.Raw(msgspec.msgpack.encode(value)))


async def read(box, count):
    chunks = box.chunks()
    return [await anext(chunks) for _ in range(count)]


def test_half_a_window_is_granted_as_it_is_read():
    async def main():
        granted = []
        box = Inbox(granted.append)
        half = WINDOW // 2 // MIN_CHUNK_CREDITS
        for value in range(half + 1):
            box.resume(chunk(value))
        chunks = box.chunks()

        assert [await anext(chunks) for _ in range(half)] == list(range(half))
        assert granted == []
        await anext(chunks)
        assert granted == [WINDOW // 2]

    run(main())


def test_a_large_chunk_is_granted_anew_once_the_next_is_wanted():
    async def main():
        granted = []
        box = Inbox(granted.append)
        large = chunk("x" * 1_000_000)
        box.resume(large)
        chunks = box.chunks()

        await anext(chunks)
        assert granted == []
        waiting = asyncio.ensure_future(anext(chunks))
        await asyncio.sleep(0)
        assert granted == [len(large.chunk)]
        waiting.cancel()

    run(main())


def test_nothing_is_granted_for_a_stream_that_has_ended():
    async def main():
        granted = []
        box = Inbox(granted.append)
        for value in range(100):
            box.resume(chunk(value))
        box.resume(StreamEnd(1, 100))

        assert len([value async for value in box.chunks()]) == 100
        assert granted == []

    run(main())


def test_chunks_before_a_failure_are_read_first():
    async def main():
        box = Inbox(lambda _: None)
        box.resume(chunk("a"))
        box.fail(EngineError(EngineErrorCode.MODEL_ERROR, "no"))
        chunks = box.chunks()

        assert await anext(chunks) == "a"
        with pytest.raises(EngineError):
            await anext(chunks)

    run(main())


def test_a_reader_waits_for_what_comes_later():
    async def main():
        box = Inbox(lambda _: None)
        reading = asyncio.create_task(read(box, 1))
        await asyncio.sleep(0)

        box.resume(chunk({"a": [1]}))

        assert await reading == [{"a": [1]}]

    run(main())


@pytest.mark.parametrize("data", [b"", b"\xc1", b"\xa1\xff", b"\x91" * 100_000])
def test_a_chunk_that_is_not_a_value_fails_its_stream(data):
    with pytest.raises(EngineError) as caught:
        inbox.read_chunk(data)

    assert caught.value.code is EngineErrorCode.MODEL_ERROR
