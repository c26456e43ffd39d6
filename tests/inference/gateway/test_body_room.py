"""Room for large bodies and unread answers, which customers share."""

import asyncio
import json

import pytest
import uvloop

from inference.dialects.native.native import NATIVE
from inference.gateway.bounds import BodyRoom
from tests.inference.gateway.plant import (
    GOOD,
    OTHER_KEY,
    Plant,
    listening,
    read_answer,
    request,
)
from tests.waiting import until

LARGE = json.dumps(GOOD).encode() + b" " * 300_000
BODY = json.dumps(GOOD).encode()
SMALL = request(content=BODY)
# There is no room for a second body of this size.
MOST = bytes(2_000_000)
CHUNKED = [("transfer-encoding", "chunked")]

both_loops = pytest.mark.parametrize("run", [asyncio.run, uvloop.run])


class Seeker:
    def __init__(self):
        self.told = 0

    def room_made(self):
        self.told += 1


def test_bodies_without_room_have_it_in_their_order():
    room = BodyRoom(100)
    first, second, small = Seeker(), Seeker(), Seeker()
    assert room.take(7, 40, Seeker())

    assert not room.take(7, 30, first)
    assert not room.take(7, 30, second)
    # It waits behind the others, although it would fit.
    assert not room.take(7, 10, small)
    assert room.take(8, 20, Seeker())
    room.give_back(7, 40)

    assert (first.told, second.told, small.told) == (1, 0, 0)
    assert (room.shares.used, room.shares.refused) == (50, 0)

    room.stop_waiting(7, second, refused=True)

    assert small.told == 1
    assert (room.shares.used, room.shares.refused) == (60, 1)


def begun(body=LARGE, *, sent=1000, **given):
    """Write a request with only the first `sent` bytes of its body."""
    whole = request(content=body, **given)
    return whole[: len(whole) - len(body) + sent]


class Clients:
    """Many connections to one plant, which close at the end of the block."""

    def __init__(self, plant):
        self._listening = listening(plant.listener)
        self._writers = []

    async def __aenter__(self):
        self._port = await self._listening.__aenter__()
        return self

    async def __aexit__(self, *error):
        self.leave()
        await self._listening.__aexit__(*error)

    async def send(self, *sent):
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        self._writers.append(writer)
        for data in sent:
            writer.write(data)
        return reader, writer

    def leave(self):
        for writer in self._writers:
            writer.transport.abort()


@both_loops
def test_who_floods_waits_and_is_refused_while_others_are_answered(tmp_path, run):
    async def flood():
        plant = Plant(tmp_path, max_large_bytes=800_000)
        async with Clients(plant) as clients:
            # A customer alone has half, so one of these bodies fits.
            ends = [await clients.send(begun()) for _ in range(3)]
            await until(lambda: len(plant.driver.room._waiting.get(7, ())) == 2)
            used = plant.driver.room.shares.used

            reader, _ = await clients.send(request(content=LARGE, key=OTHER_KEY.token))
            other = await read_answer(reader)
            reader, _ = await clients.send(SMALL)
            small = await read_answer(reader)

            # The first takes longer than the others may wait.
            hold = plant.engine.hold = asyncio.Event()
            ends[0][1].write(LARGE[1000:])
            await until(lambda: plant.engine.calls == 3)
            plant.clock.advance(11)
            plant.listener.sweep()
            refused = [await read_answer(reader) for reader, _ in ends[1:]]
            hold.set()
            first = await read_answer(ends[0][0])
            # The rest of a body must not be read as a request.
            ends[2][1].write(LARGE[1000:] + SMALL)
            after = await read_answer(ends[2][0])
            clients.leave()
            await until(lambda: not plant.listener.connections)
        return used, other, small, first, refused, after, plant

    used, other, small, first, refused, after, plant = run(flood())

    assert used == len(LARGE)
    assert [answer[0] for answer in (other, small, first, after)] == [200] * 4
    for status, headers, body in refused:
        assert (status, json.loads(body)["error"]["code"]) == (503, "OVERLOADED")
        assert headers["retry-after"] == "5"
    assert plant.metrics.bounds["large_body_bytes"].refused == 2
    assert plant.driver.room.shares.used == 0
    assert not plant.driver.room._waiting


@both_loops
def test_what_waits_for_room_is_not_read(tmp_path, run):
    async def waiting():
        plant = Plant(tmp_path, max_large_bytes=4_200_000)
        async with Clients(plant) as clients:
            await clients.send(begun(MOST))
            await until(lambda: plant.driver.room.shares.used)
            ends = []
            for sent in (
                # Behind another request; and behind two, when its head is known.
                [SMALL, begun()],
                [SMALL, SMALL, begun()],
                [request(content=b"%x\r\n%b" % (len(LARGE), LARGE), headers=CHUNKED)],
            ):
                ends.append(await clients.send(*sent))
            await until(lambda: len(plant.driver.room._waiting.get(7, ())) == 3)
            for _, writer in ends[:2]:
                writer.write(bytes(10_000_000))
            await asyncio.sleep(0.05)
            waiting = list(plant.driver.room._waiting[7])
            sizes = [exchange._size for exchange in waiting]
            clients.leave()
            await until(lambda: not plant.listener.connections)
        return sizes, plant

    sizes, plant = run(waiting())

    assert max(sizes) < 400_000
    assert plant.driver.room.shares.used == 0
    assert not plant.driver.room._waiting


@both_loops
def test_a_chunked_body_has_room_for_all_it_may_become(tmp_path, run):
    async def chunked():
        plant = Plant(tmp_path, max_large_bytes=100_000_000)
        hold = plant.engine.hold = asyncio.Event()
        most = 2 * 1024 * 1024
        async with Clients(plant) as clients:
            sent = b"%x\r\n%b\r\n" % (len(LARGE), LARGE)
            reader, writer = await clients.send(request(content=sent, headers=CHUNKED))
            await until(lambda: plant.driver.room.shares.used)
            coming = plant.driver.room.shares.used
            writer.write(b"0\r\n\r\n")
            await until(lambda: plant.engine.calls)
            working = plant.driver.room.shares.used
            hold.set()
            answer = await read_answer(reader)
            clients.leave()
        return coming == most, working, answer[0], plant.driver.room.shares.used

    assert run(chunked()) == (True, len(LARGE), 200, 0)


@both_loops
def test_a_body_that_is_whole_waits_for_room_too(tmp_path, run):
    async def whole():
        plant = Plant(tmp_path, max_large_bytes=4_200_000)
        async with Clients(plant) as clients:
            _, first = await clients.send(begun(MOST))
            await until(lambda: plant.driver.room.shares.used)
            sent = b"%x\r\n%b\r\n0\r\n\r\n" % (70_000, LARGE[:70_000])
            reader, _ = await clients.send(request(content=sent, headers=CHUNKED))
            await until(lambda: plant.driver.room._waiting)
            first.transport.abort()
            answer = await read_answer(reader)
            clients.leave()
        return answer[0], plant.driver.room.shares.used

    assert run(whole()) == (200, 0)


@both_loops
def test_a_body_over_its_limit_is_refused_without_room(tmp_path, run):
    async def refused():
        plant = Plant(tmp_path, max_large_bytes=4_000_000)
        async with Clients(plant) as clients:
            await clients.send(begun())
            await until(lambda: plant.driver.room.shares.used)
            reader, _ = await clients.send(begun(bytes(3_000_000)))
            announced = await read_answer(reader)
            reader, _ = await clients.send(begun(key="my_live_wrong"))
            stranger = await read_answer(reader)
            clients.leave()
        return announced[0], stranger[0]

    assert run(refused()) == (413, 401)


# Several times what the kernel buffers for a client that does not read: 10 MB at most.
LONG = bytes(40_000_000)


@both_loops
def test_answers_that_are_not_read_have_a_bound(tmp_path, run, monkeypatch):
    monkeypatch.setattr(
        type(NATIVE), "encode", lambda self, _: (b"application/json", LONG, [])
    )

    async def unread():
        plant = Plant(tmp_path, max_large_bytes=2 * len(LONG))
        async with Clients(plant) as clients:
            first, _ = await clients.send(SMALL * 3)
            await until(lambda: plant.driver.unread.used)
            used, calls = plant.driver.unread.used, plant.engine.calls

            second, _ = await clients.send(SMALL)
            await until(lambda: plant.listener.cut_off)
            with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
                await read_answer(second)
            other, _ = await clients.send(request(content=BODY, key=OTHER_KEY.token))
            theirs = await read_answer(other)

            # A client that reads at last gets all its answers.
            answers = [await read_answer(first) for _ in range(3)]
            clients.leave()
            await until(lambda: not plant.listener.connections)
        return used, calls, theirs, answers, plant

    used, calls, theirs, answers, plant = run(unread())

    # Requests behind an answer that is not read have not begun.
    assert calls == 1
    assert 0 < used < len(LONG)
    assert [answer[0] for answer in (theirs, *answers)] == [200] * 4
    assert (plant.driver.unread.used, plant.driver.unread.refused) == (0, 1)


@both_loops
def test_a_gateway_that_stops_answers_what_waits_behind_an_unread_answer(
    tmp_path, run, monkeypatch
):
    monkeypatch.setattr(
        type(NATIVE), "encode", lambda self, _: (b"application/json", LONG, [])
    )

    async def stopped():
        plant = Plant(tmp_path)
        async with Clients(plant) as clients:
            reader, _ = await clients.send(SMALL * 2)
            await until(lambda: plant.driver.unread.used)
            plant.clock.advance(40)
            plant.listener.sweep()
            draining = asyncio.create_task(plant.listener.drain(50))
            await asyncio.sleep(0.01)
            plant.clock.advance(2)
            answers = [await read_answer(reader) for _ in range(3)]
            await draining
            clients.leave()
        return answers

    answers = run(stopped())

    assert [answer and answer[0] for answer in answers] == [200, 200, None]
    assert answers[1][1]["connection"] == "close"
