"""Known heads are not parsed again; nothing else may differ."""

import asyncio
import functools
import json

import msgspec
import pytest

from inference.gateway.http1 import known_heads
from inference.gateway.http1.exchange import HeadReading, Request
from inference.gateway.http1.known_heads import KnownHeads
from tests.inference.gateway.plant import GOOD, Plant, published, read_answer, request
from tests.inference.gateway.test_app import on_loop

CONTENT = json.dumps(GOOD).encode()
READING = HeadReading(lambda connection: None, recurs=True)


def head(*lines):
    return "\r\n".join(["POST /x HTTP/1.1", *lines, "", ""]).encode()


def parsed(*headers, **named):
    facts = {"http_1_0": False, "keep_alive": True} | named
    return Request(
        b"POST", b"/x", [(name.encode(), value.encode()) for name, value in headers],
        **facts,
    )  # fmt: skip


LENGTH = ("content-length", "7")


def test_a_head_is_known_with_whatever_body_follows():
    known = KnownHeads()
    data = head("content-length: 7")
    known.remember(data, parsed(LENGTH), READING)

    found, whole = known.find(data + b"abcdefg" + data)

    assert whole == data
    assert (found.start, found.end) == (len(data), len(data) + 7)
    assert known.find(data[:-1]) == (None, b"")
    assert known.find(head("content-length: 8"))[0] is None


@pytest.mark.parametrize(
    ("data", "made", "reading"),
    [
        (head(), parsed(), READING),
        (head("content-length: 0"), parsed(("content-length", "0")), READING),
        (head("a: b"), parsed(LENGTH, LENGTH), READING),
        (head("a: b"), parsed(LENGTH, ("transfer-encoding", "chunked")), READING),
        (head("a: b"), parsed(LENGTH, ("expect", "100-continue")), READING),
        (head("a: b"), parsed(LENGTH, ("upgrade", "h2c")), READING),
        (head("a: b"), parsed(LENGTH, ("connection", "close")), READING),
        (head("a: b"), parsed(LENGTH, keep_alive=False), READING),
        (head("a: b\nc: d"), parsed(LENGTH), READING),
        (b"\r\n" + head("a: b"), parsed(LENGTH), READING),
        (head("a: b"), parsed(LENGTH), HeadReading(lambda connection: None)),
    ],
)
def test_a_head_that_may_mean_more_is_not_remembered(data, made, reading):
    known = KnownHeads()

    known.remember(data, made, reading)

    assert len(known) == 0


def test_heads_do_not_add_up(monkeypatch):
    monkeypatch.setattr(known_heads, "_MAX_HEADS", 10)
    known = KnownHeads()

    for number in range(35):
        known.remember(head(f"a: {number}"), parsed(LENGTH), READING)

    assert len(known) == 5


def test_a_long_head_is_not_looked_for():
    assert KnownHeads().find(head("a: " + 5000 * "x")) == (None, b"")


async def statuses(reader, count):
    return [(await read_answer(reader))[0] for _ in range(count)]


@on_loop
async def test_known_heads_are_answered_like_the_first_one(tmp_path):
    plant = Plant(tmp_path)
    sent = request(content=CONTENT)

    async with plant.connect(sent) as (reader, writer):
        first = await read_answer(reader)
        assert len(plant.listener.heads) == 1
        writer.write(sent)
        second = await read_answer(reader)

    assert first[0] == second[0] == 200
    assert first[1].keys() == second[1].keys()
    assert first[1]["x-request-id"] != second[1]["x-request-id"]


@pytest.mark.parametrize("size", [1, 7, 100, 333, 2000])
@on_loop
async def test_known_heads_and_bodies_may_come_in_any_pieces(tmp_path, size):
    plant = Plant(tmp_path)
    sent = request(content=CONTENT)
    chunked = request(
        content=b"%x\r\n%b\r\n0\r\n\r\n" % (len(CONTENT), CONTENT),
        headers=[("transfer-encoding", "chunked")],
    )
    health = b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n"

    async with plant.connect(sent) as (reader, writer):
        answers = await statuses(reader, 1)
        data = sent + sent + chunked + sent + health + sent
        for start in range(0, len(data), size):
            writer.write(data[start : start + size])
            await asyncio.sleep(0)
        answers += await statuses(reader, 6)

    assert answers == [200] * 7


@on_loop
async def test_many_known_heads_in_one_packet_are_answered_in_order(tmp_path):
    plant = Plant(tmp_path)
    first = request(content=CONTENT, headers=[("x-request-id", "first")])
    other = request(content=CONTENT, headers=[("x-request-id", "other")])

    async with plant.connect(first) as (reader, writer):
        await read_answer(reader)
        writer.write(other)
        await read_answer(reader)
        writer.write((first + other + other) * 500)
        ids = [(await read_answer(reader))[1]["x-request-id"] for _ in range(1500)]

    assert ids == ["first", "other", "other"] * 500


@on_loop
async def test_a_known_head_of_a_revoked_key_is_refused(tmp_path):
    plant = Plant(tmp_path)
    sent = request(content=CONTENT)

    async with plant.connect(sent) as (reader, writer):
        answered = await statuses(reader, 1)
        plant.tables.replace(msgspec.structs.replace(published(), keys=()))
        writer.write(sent)
        refused = await statuses(reader, 1)

    assert (answered, refused) == ([200], [401])


@on_loop
async def test_a_refusal_before_the_body_of_a_known_head_leaves_the_connection(
    tmp_path,
):
    plant = Plant(tmp_path)
    sent = request(content=CONTENT, key="nonsense")

    async with plant.connect(sent) as (reader, writer):
        answers = await statuses(reader, 1)
        writer.write(sent[:-5])
        answers += await statuses(reader, 1)
        writer.write(sent[-5:] + request(content=CONTENT))
        answers += await statuses(reader, 1)

    assert answers == [401, 401, 200]


@on_loop
async def test_a_client_that_leaves_within_a_known_body_is_not_answered(tmp_path):
    plant = Plant(tmp_path)
    sent = request(content=CONTENT)

    async with plant.connect(sent) as (reader, writer):
        await read_answer(reader)
        writer.write(sent[:-5])
        while not any(not one.idle for one in plant.listener.connections):
            await asyncio.sleep(0)
        writer.close()
        while plant.listener.connections:
            await asyncio.sleep(0)

    assert plant.metrics.abandoned == 1


@on_loop
async def test_a_client_whose_heads_all_differ_is_not_looked_up_for_ever(
    tmp_path, monkeypatch
):
    plant = Plant(tmp_path)
    looked = []
    find = functools.partial(KnownHeads.find, plant.listener.heads)
    monkeypatch.setattr(
        plant.listener.heads, "find", lambda data: looked.append(1) or find(data)
    )

    async with plant.connect() as (reader, writer):
        for number in range(60):
            headers = [("x-request-id", f"r{number}")]
            writer.write(request(content=CONTENT, headers=headers))
            await read_answer(reader)

    assert len(looked) < 40
