import asyncio
import time

import pytest

from inference.codecs.images import encoded
from inference.errors.api_error import ApiError, ErrorCode
from inference.gateway.driver.image_reader import ImageReader
from inference.prediction.effects import ReadImages
from tests.inference.codecs.test_images import COLOUR, picture

# Some tens of milliseconds of work.
LARGE = picture(size=(1800, 1800), kind="JPEG")


def ask(*files, timeout_s=60.0, customer_id=1):
    images = encoded(COLOUR, list(files), [None] * len(files))
    return ReadImages(images, timeout_s, customer_id)


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
    # In the loop they would block it for the whole time. Another process may do that
    # too, but hardly each time.
    assert min(longest / took for longest, took, _ in turns) < 0.5


def test_more_than_fit_are_refused_at_once():
    reader = ImageReader(max_pixels=10_000_000, max_waiting=1)

    async def crowd():
        calls = [reader.read(ask(LARGE)) for _ in range(4)]
        first = await asyncio.gather(*calls, return_exceptions=True)
        # Finished reads make room.
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


def test_a_customer_who_floods_leaves_others_their_turn():
    reader = ImageReader(max_pixels=10_000_000, max_waiting=8)
    done = []

    async def read(customer_id):
        await reader.read(ask(LARGE, customer_id=customer_id))
        done.append(customer_id)

    async def crowd():
        flood = [asyncio.ensure_future(read(1)) for _ in range(20)]
        await asyncio.sleep(0)
        once = asyncio.ensure_future(read(2))
        found = await asyncio.gather(*flood, once, return_exceptions=True)
        return [error.code for error in found if isinstance(error, ApiError)]

    refused = asyncio.run(closing(reader, crowd()))

    # Two were decoded at once, and four more waited: half of the places.
    assert refused == [ErrorCode.OVERLOADED] * (20 - 2 - 4)
    # Two were running, and one more had its turn before.
    assert done.index(2) <= 4


def test_a_caller_who_leaves_gives_the_turn_on():
    reader = ImageReader(max_pixels=10_000_000, max_waiting=1)

    async def crowd():
        running = [asyncio.ensure_future(reader.read(ask(LARGE))) for _ in range(2)]
        await asyncio.sleep(0)
        for _ in range(3):
            leaving = asyncio.ensure_future(reader.read(ask(LARGE)))
            await asyncio.sleep(0)
            leaving.cancel()
            await asyncio.gather(leaving, return_exceptions=True)
        leaving = asyncio.ensure_future(reader.read(ask(LARGE)))
        await asyncio.sleep(0)
        # Cancel it in the turn of the loop in which it would get a thread.
        running[0].add_done_callback(lambda _: leaving.cancel())
        await asyncio.gather(*running)
        return await asyncio.gather(*(reader.read(ask(LARGE)) for _ in range(2)))

    found = asyncio.run(closing(reader, crowd()))

    assert [read.indexes for read in found] == [[0]] * 2
