import asyncio
import time

import pytest

from inference.effects import ReadImages
from inference.errors import ApiError, ErrorCode
from inference.gateway.image_reader import ImageReader
from inference.images import encoded
from tests.inference.test_images import COLOUR, picture

# Some tens of milliseconds of work.
LARGE = picture(size=(1800, 1800), kind="JPEG")


def ask(*files, timeout_s=60.0):
    return ReadImages(encoded(COLOUR, list(files), [None] * len(files)), timeout_s)


async def closing(reader, work):
    try:
        return await work
    finally:
        reader.close()


def test_the_loop_turns_while_pictures_are_decoded():
    reader = ImageReader(max_pixels=10_000_000)

    async def turn():
        work = asyncio.ensure_future(reader.read(ask(*[LARGE] * 4)))
        longest, before = 0.0, (started := time.perf_counter())
        while not work.done():
            await asyncio.sleep(0)
            now = time.perf_counter()
            longest, before = max(longest, now - before), now
        return longest, time.perf_counter() - started, await work

    async def repeat():
        return [await turn() for _ in range(5)]

    turns = asyncio.run(closing(reader, repeat()))

    assert {read.tensors[0].data.shape for *_, read in turns} == {(4, 3, 4, 6)}
    # In a row they would keep it for all of the time; so may another process, but
    # hardly every time.
    assert min(longest / took for longest, took, _ in turns) < 0.5


def test_more_than_fit_are_refused_at_once():
    reader = ImageReader(max_pixels=10_000_000, max_waiting=2)

    async def crowd():
        calls = [reader.read(ask(LARGE)) for _ in range(3)]
        first = await asyncio.gather(*calls, return_exceptions=True)
        # What is over makes room.
        await asyncio.sleep(0)
        return first, await reader.read(ask(LARGE))

    first, later = asyncio.run(closing(reader, crowd()))

    [refused] = [found for found in first if isinstance(found, ApiError)]
    assert refused.code is ErrorCode.OVERLOADED
    assert refused.retry_after_s
    assert later.indexes == [0]


def test_who_waits_too_long_is_told():
    reader = ImageReader(max_pixels=10_000_000)

    with pytest.raises(ApiError) as caught:
        asyncio.run(closing(reader, reader.read(ask(*[LARGE] * 8, timeout_s=0.02))))

    assert caught.value.code is ErrorCode.INFERENCE_TIMEOUT
