"""Large bodies behind known heads use one buffer; nothing else may differ."""

import asyncio
import json

import pytest
import uvloop

from inference.gateway.http1.large_body import LargeBodies, LargeBody
from tests.inference.gateway.plant import GOOD, Plant, read_answer, request

LARGE = json.dumps(GOOD).encode() + b" " * 300_000
SENT = request(content=LARGE)
SMALL = request(content=json.dumps(GOOD).encode())

both_loops = pytest.mark.parametrize("run", [asyncio.run, uvloop.run])


@pytest.fixture
def made(monkeypatch):
    """List the bodies that a LargeBody has read."""
    bodies = []
    begin = LargeBody.__init__

    def listed(self, *arguments):
        begin(self, *arguments)
        bodies.append(self)

    monkeypatch.setattr(LargeBody, "__init__", listed)
    return bodies


async def arrived(reader, writer, data, piece=70_000):
    for start in range(0, len(data), piece):
        writer.write(data[start : start + piece])
        await writer.drain()
        await asyncio.sleep(0.001)
    return await read_answer(reader)


@both_loops
def test_large_bodies_are_answered_like_the_first_one(tmp_path, made, run):
    async def statuses():
        plant = Plant(tmp_path)
        async with plant.connect() as (reader, writer):
            answers = [await arrived(reader, writer, SENT) for _ in range(3)]
            writer.write(SENT + SMALL + SENT)
            answers += [await read_answer(reader) for _ in range(3)]
        assert plant.listener.large_bodies.open_bytes == 0
        return [status for status, *_ in answers]

    assert run(statuses()) == [200] * 6
    # The first head is parsed; some of the later requests may come in one piece.
    assert len(made) >= 2


@both_loops
def test_a_client_that_leaves_within_a_large_body_is_forgotten(tmp_path, made, run):
    async def abandoned():
        plant = Plant(tmp_path)
        async with plant.connect() as (reader, writer):
            await arrived(reader, writer, SENT)
            writer.write(SENT[:100_000])
            while not made:
                await asyncio.sleep(0.001)
            writer.close()
            while plant.listener.connections:
                await asyncio.sleep(0.001)
        return plant.metrics.abandoned, plant.listener.large_bodies.open_bytes

    assert run(abandoned()) == (1, 0)


@both_loops
def test_a_large_body_that_does_not_come_is_given_up(tmp_path, made, run):
    async def answer():
        plant = Plant(tmp_path)
        async with plant.connect() as (reader, writer):
            await arrived(reader, writer, SENT)
            writer.write(SENT[:100_000])
            while not made:
                await asyncio.sleep(0.001)
            plant.clock.advance(6)
            plant.listener.sweep()
            refused = await read_answer(reader)
            # The rest of the body is dropped.
            writer.write(SENT[100_000:])
            end = await read_answer(reader)
        return refused[0], end

    assert run(answer()) == (408, None)


@pytest.mark.parametrize("padding", [1, 5 * 1024 * 1024])
def test_small_and_huge_bodies_are_not_read_apart(tmp_path, made, padding):
    async def answer():
        plant = Plant(tmp_path)
        sent = request(content=json.dumps(GOOD).encode() + b" " * padding)
        async with plant.connect() as (reader, writer):
            for _ in range(2):
                status = (await arrived(reader, writer, sent, piece=1 << 20))[0]
        return status

    assert asyncio.run(answer()) == (200 if padding == 1 else 413)
    assert made == []


def test_what_is_read_apart_and_how_much_at_once():
    bodies = LargeBodies()
    mebibyte = 1024 * 1024

    assert bodies.begin(None, 82_000, b"x" * 65_536) is None
    assert bodies.begin(None, 10**18, b"") is None
    made = [bodies.begin(None, mebibyte, b"x") for _ in range(100)]

    assert sum(body is not None for body in made) == 64
