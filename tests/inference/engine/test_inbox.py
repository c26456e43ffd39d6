import asyncio

import msgspec
import pytest

from inference.engine import inbox
from inference.engine.errors import EngineError, EngineErrorCode
from inference.engine.frames import MalformedFrame
from inference.engine.inbox import WINDOW, Inbox
from inference.engine.messages import StreamChunk, StreamEnd
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
        for value in range(WINDOW):
            box.resume(chunk(value))

        assert await read(box, WINDOW // 2 - 1) == list(range(WINDOW // 2 - 1))
        assert granted == []
        await read(box, 1)
        assert granted == [WINDOW // 2]

    run(main())


def test_nothing_is_granted_for_a_stream_that_has_ended():
    async def main():
        granted = []
        box = Inbox(granted.append)
        for value in range(WINDOW):
            box.resume(chunk(value))
        box.resume(StreamEnd(1, WINDOW))

        assert len([value async for value in box.chunks()]) == WINDOW
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
def test_what_is_no_value_is_malformed(data):
    with pytest.raises(MalformedFrame):
        inbox.read_chunk(msgspec.Raw(data))
