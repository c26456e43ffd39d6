"""Buffers between a fast and a slow side."""

import asyncio
import os
import random

import pytest

from inference.errors.api_error import ApiError, ErrorCode
from inference.gateway.bounds import Bytes
from inference.gateway.http1.asgi import ClientLeft
from inference.gateway.owners import customer
from inference.gateway.relay.buffers import MEMORY_BYTES, Buffers
from tests.inference.gateway.test_app import on_loop
from tests.torture import examples

ONE = customer(7)


def buffers(folder, most=10**9):
    return Buffers(folder, Bytes(most))


async def taken(buffer, chance):
    """Read everything, with a pause now and then."""
    content = b""
    while data := await buffer.get():
        content += data
        if chance.random() < 0.3:
            await asyncio.sleep(chance.choice([0, 0, 0.001]))
    return content


@pytest.mark.parametrize("seed", range(examples(10)))
@on_loop
async def test_what_is_put_is_got_in_any_order_of_steps(tmp_path, seed):
    chance = random.Random(seed)
    all_of_them = buffers(tmp_path)
    buffer = all_of_them.open(ONE)
    content = chance.randbytes(2_000_000)
    getting = asyncio.create_task(taken(buffer, chance))

    start = 0
    while start < len(content):
        end = start + chance.choice([1, 1000, 65536, 300_000])
        await buffer.put(content[start:end])
        start = end
        if chance.random() < 0.3:
            await asyncio.sleep(chance.choice([0, 0, 0.001]))
    buffer.end()

    assert await getting == content
    buffer.close()
    assert all_of_them.memory_bytes == all_of_them.held.used == 0
    all_of_them.close()


@on_loop
async def test_a_quick_reader_needs_little_room(tmp_path):
    all_of_them = buffers(tmp_path, 4_000_000)
    buffer = all_of_them.open(ONE)

    for _ in range(100):
        await buffer.put(bytes(400_000))
        got = 0
        while got < 400_000:
            got += len(await buffer.get())

    assert buffer.size == 40_000_000
    assert all_of_them.held.used <= 400_000
    buffer.close()
    all_of_them.close()


@on_loop
async def test_files_have_no_name_and_end_with_their_buffer(tmp_path):
    files = len(os.listdir("/proc/self/fd"))
    all_of_them = buffers(tmp_path)
    buffer = all_of_them.open(ONE)

    await buffer.put(bytes(MEMORY_BYTES + 1))
    during = len(os.listdir("/proc/self/fd"))
    buffer.close()
    buffer.close()

    assert list(tmp_path.iterdir()) == []
    assert during == files + 1
    assert len(os.listdir("/proc/self/fd")) == files
    with pytest.raises(ClientLeft):
        await buffer.put(b"late")
    all_of_them.close()


@on_loop
async def test_a_disk_that_is_full_is_our_fault(tmp_path):
    all_of_them = buffers(tmp_path / "missing")
    buffer = all_of_them.open(ONE)

    with pytest.raises(ApiError) as refused:
        await buffer.put(bytes(MEMORY_BYTES + 1))

    assert refused.value.code is ErrorCode.OVERLOADED
    buffer.close()
    assert all_of_them.held.used == 0
    all_of_them.close()


@on_loop
async def test_a_task_that_is_given_up_leaves_its_file_to_the_thread(tmp_path):
    files = len(os.listdir("/proc/self/fd"))
    all_of_them = buffers(tmp_path)
    buffer = all_of_them.open(ONE)
    putting = asyncio.create_task(buffer.put(bytes(50_000_000)))
    await asyncio.sleep(0)

    putting.cancel()
    buffer.close()
    await asyncio.wait((putting,))
    async with asyncio.timeout(60):
        while len(os.listdir("/proc/self/fd")) > files:
            await asyncio.sleep(0.001)

    assert all_of_them.held.used == 0
    all_of_them.close()
