"""HTTP/1.1 over real sockets: everything that clients may send."""

import asyncio
import contextlib
import json
import tracemalloc

import pytest

from accounts.admission.networks import Networks
from inference.gateway.http1.asgi import answered_by
from inference.gateway.http1.listener import Listener
from tests.inference.gateway.plant import (
    GOOD,
    KEY,
    OTHER_KEY,
    PREDICT,
    Plant,
    listener,
    listening,
    read_answer,
    request,
    settled,
)
from tests.inference.gateway.test_app import arrival, on_loop, turns

CONTENT = json.dumps(GOOD).encode()
HEALTH = b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n"


@on_loop
async def test_connection_is_kept_for_the_next_request(tmp_path):
    plant = Plant(tmp_path)

    async with plant.connect() as (reader, writer):
        statuses = []
        for _ in range(3):
            writer.write(request(content=CONTENT))
            statuses.append((await read_answer(reader))[0])

    assert statuses == [200] * 3


@on_loop
async def test_requests_sent_at_once_are_answered_in_order(tmp_path):
    plant = Plant(tmp_path)
    sent = b"".join(
        request(content=CONTENT, headers=[("x-request-id", f"r{number}")])
        for number in range(100)
    )

    async with plant.connect(sent) as (reader, _):
        ids = [(await read_answer(reader))[1]["x-request-id"] for _ in range(100)]

    assert ids == [f"r{number}" for number in range(100)]


@on_loop
async def test_thousands_of_refusals_in_one_packet_need_no_stack(tmp_path):
    plant = Plant(tmp_path)
    sent = request(content=CONTENT, key="nonsense") * 3000

    async with plant.connect(sent) as (reader, _):
        statuses = {(await read_answer(reader))[0] for _ in range(3000)}

    assert statuses == {401}


@on_loop
async def test_answer_before_the_body_leaves_the_connection_usable(tmp_path):
    plant = Plant(tmp_path)

    async with plant.connect(
        request(key="nonsense", headers=[("content-length", "10")])
    ) as (reader, writer):
        refused = await read_answer(reader)
        writer.write(b"0123456789" + request(content=CONTENT))
        answered = await read_answer(reader)

    assert (refused[0], answered[0]) == (401, 200)


@on_loop
async def test_body_in_chunks_is_one_body(tmp_path):
    plant = Plant(tmp_path)
    half = len(CONTENT) // 2
    chunks = b"".join(
        b"%x\r\n%b\r\n" % (len(part), part)
        for part in (CONTENT[:half], CONTENT[half:], b"")
    )
    sent = request(headers=[("transfer-encoding", "chunked")]) + chunks

    async with plant.connect(sent) as (reader, _):
        status, _, _ = await read_answer(reader)

    assert status == 200


@on_loop
async def test_broken_chunk_ends_the_call_and_the_connection(tmp_path):
    plant = Plant(tmp_path)
    sent = request(headers=[("transfer-encoding", "chunked")]) + b"zz\r\n"

    async with plant.connect(sent) as (reader, _):
        status, headers, _ = await read_answer(reader)
        rest = await reader.read()

    assert (status, headers["connection"], rest) == (400, "close", b"")
    assert (await plant.ask()).status_code == 200


@on_loop
async def test_fields_behind_a_body_are_no_headers(tmp_path):
    opened = []

    async def application(scope, receive, send):
        await receive()
        opened.append(dict(scope["headers"]))
        answer = {"status": 204, "headers": [(b"x", b"y")]}
        await send({"type": "http.response.start"} | answer)
        await send({"type": "http.response.body"})

    plant = Plant(tmp_path)
    head = request(headers=[("transfer-encoding", "chunked")])
    sent = head + b"1\r\nx\r\n0\r\nx-forwarded-for: 10.0.0.1\r\n\r\n"

    async with listening(listener(answered_by(application), plant.clock)) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(sent + sent)
        for _ in range(2):
            await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 30)
        writer.close()
        await writer.wait_closed()

    assert all(headers[b"host"] == b"public" for headers in opened)
    assert not any(b"x-forwarded-for" in headers for headers in opened)


@on_loop
async def test_endless_fields_behind_a_body_are_not_kept(tmp_path):
    plant = Plant(tmp_path)
    head = request(headers=[("transfer-encoding", "chunked")], key="nonsense")

    async with plant.connect(head + b"1\r\nx\r\n0\r\n") as (reader, writer):
        status, _, _ = await read_answer(reader)
        tracemalloc.start()
        for _ in range(100):
            writer.write((b"x-a: %b\r\n" % (b"z" * 1000)) * 100)
            await writer.drain()
        await turns()
        held, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        writer.transport.abort()
        await turns()

    assert status == 401
    assert held < 2_000_000


@on_loop
async def test_rubbish_behind_a_request_does_not_take_its_answer(tmp_path):
    plant = Plant(tmp_path)
    plant.engine.hold = asyncio.Event()

    async with plant.connect(request(content=CONTENT) + b"\0\0\r\n\r\n") as (reader, _):
        while not plant.engine.calls:
            await asyncio.sleep(0)
        plant.engine.hold.set()
        status, headers, _ = await read_answer(reader)

    assert (status, headers["connection"]) == (200, "close")


@on_loop
async def test_offer_of_another_protocol_is_declined_by_an_answer(tmp_path):
    plant = Plant(tmp_path)
    offer = [("connection", "Upgrade, HTTP2-Settings"), ("upgrade", "h2c")]
    sent = request(content=CONTENT, headers=offer)

    async with plant.connect(sent) as (reader, writer):
        first = await read_answer(reader)
        writer.write(sent)
        second = await read_answer(reader)

    assert (first[0], second[0]) == (200, 200)


@on_loop
async def test_old_clients_get_an_answer_and_the_end(tmp_path):
    plant = Plant(tmp_path)

    async with plant.connect(b"GET /healthz HTTP/1.0\r\n\r\n") as (reader, _):
        status, headers, body = await read_answer(reader)
        rest = await reader.read()

    assert (status, headers["connection"], body, rest) == (200, "close", b"ok", b"")


@on_loop
async def test_idle_connection_is_closed(tmp_path):
    plant = Plant(tmp_path)

    async with plant.connect(HEALTH) as (reader, _):
        await read_answer(reader)
        plant.clock.advance(29)
        plant.listener.sweep()
        assert plant.listener.connections
        plant.clock.advance(2)
        plant.listener.sweep()
        assert await reader.read() == b""


@on_loop
async def test_head_that_trickles_in_is_cut_off(tmp_path):
    plant = Plant(tmp_path)

    async with plant.connect() as (reader, writer):
        await turns()
        plant.clock.advance(25)
        plant.listener.sweep()
        writer.write(HEALTH[:10])
        await arrival(plant)
        plant.listener.sweep()
        assert plant.listener.connections
        plant.clock.advance(11)
        plant.listener.sweep()
        assert await reader.read() == b""


@pytest.mark.parametrize("size", [1_000, 30_000, 1_000_000])
@on_loop
async def test_head_that_is_too_large_is_refused(tmp_path, size):
    plant = Plant(tmp_path)
    large = b"GET /healthz HTTP/1.1\r\nhost: x\r\nx-a: %b\r\n\r\n"
    sent = large % (b"y" * 60_000) + large % (b"y" * 70_000)

    async with plant.connect() as (reader, writer):
        for start in range(0, len(sent), size):
            writer.write(sent[start : start + size])
            await asyncio.sleep(0)
        fits, refused = await read_answer(reader), await read_answer(reader)

    assert (fits[0], refused[0]) == (200, 431)
    assert json.loads(refused[2])["error"]["code"] == "HEADERS_TOO_LARGE"
    assert refused[1]["connection"] == "close"


@pytest.mark.parametrize("hosts", [[], ["x", "x"]])
@on_loop
async def test_request_for_no_one_host_is_refused(tmp_path, hosts):
    plant = Plant(tmp_path)
    lines = "".join(f"Host: {host}\r\n" for host in hosts)

    async with plant.connect(f"GET /healthz HTTP/1.1\r\n{lines}\r\n".encode()) as (
        reader,
        _,
    ):
        status, headers, _ = await read_answer(reader)

    assert (status, headers["connection"]) == (400, "close")


@pytest.mark.parametrize("name", ["Authorization", "X-API-Key"])
@pytest.mark.parametrize("line", [f"POST {PREDICT}", "GET /api/v1/me"])
@on_loop
async def test_a_key_that_comes_twice_is_refused_wherever_it_is_for(
    tmp_path, line, name
):
    plant = Plant(tmp_path)
    lines = "".join(f"{name}: Bearer {key.token}\r\n" for key in (KEY, OTHER_KEY))

    sent = f"{line} HTTP/1.1\r\nHost: x\r\n{lines}Content-Length: 0\r\n\r\n"
    async with plant.connect(sent.encode()) as (reader, _):
        status, _, content = await read_answer(reader)

    assert status == 400
    error = json.loads(content)["error"]
    assert (error["code"], "once" in error["message"]) == ("INVALID_HEADER", True)
    assert plant.site.requests == []


@on_loop
async def test_blanks_around_a_value_are_no_part_of_it(tmp_path):
    plant = Plant(tmp_path)
    blank = [("accept", " \tapplication/json \t")]
    by_header = [("x-api-key", f"{KEY.token} "), ("accept", "application/json ")]

    async with plant.connect() as (reader, writer):
        writer.write(request(content=CONTENT, headers=blank))
        accepted = await read_answer(reader)
        sent = request(content=CONTENT, headers=by_header)
        writer.write(sent.replace(b"authorization", b"x-other"))
        by_key = await read_answer(reader)

    assert (accepted[0], by_key[0]) == (200, 200)


@on_loop
async def test_more_connections_than_allowed_are_turned_away(tmp_path):
    plant = Plant(tmp_path)
    small = listener(plant.app.read, plant.clock, max_connections=1)

    async with listening(small) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(HEALTH)
        assert (await read_answer(reader))[0] == 200
        turned_away, other = await asyncio.open_connection("127.0.0.1", port)
        with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
            await turned_away.readexactly(1)
        other.close()
        writer.close()

    assert small.places.refused == 1


@on_loop
async def test_draining_answers_what_is_under_way_and_what_comes_next(tmp_path):
    plant = Plant(tmp_path)
    plant.engine.hold = asyncio.Event()

    async with (
        plant.connect(request(content=CONTENT)) as (busy, _),
        plant.connect(HEALTH) as (idle, writer),
    ):
        await read_answer(idle)
        while not plant.engine.calls:
            await asyncio.sleep(0)
        draining = asyncio.create_task(plant.listener.drain(5))
        await turns()
        writer.write(HEALTH)
        last = await read_answer(idle)
        plant.engine.hold.set()
        answered = await read_answer(busy)
        plant.clock.advance(2)
        await draining

    assert (last[0], last[1]["connection"]) == (200, "close")
    assert (answered[0], answered[1]["connection"]) == (200, "close")
    assert not plant.listener.connections


@on_loop
async def test_header_with_a_line_break_never_leaves(tmp_path):
    async def application(scope, receive, send):
        headers = [(b"x-name", b"a\r\nx-injected: 1")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b""})

    plant = Plant(tmp_path)

    async with listening(listener(answered_by(application), plant.clock)) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(HEALTH)
        received = await reader.read()
        writer.close()

    assert b"x-injected" not in received


@on_loop
async def test_answer_that_breaks_off_is_not_taken_for_a_whole_one(tmp_path):
    async def application(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        part = {"type": "http.response.body", "body": b"part", "more_body": True}
        await send(part)
        raise RuntimeError

    plant = Plant(tmp_path)

    async with listening(listener(answered_by(application), plant.clock)) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(HEALTH)
        received = b""
        with contextlib.suppress(ConnectionResetError):
            received = await reader.read()
        writer.close()

    assert b"0\r\n\r\n" not in received


@on_loop
async def test_slow_reader_holds_the_writer_back(tmp_path):
    sent = []

    async def application(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for number in range(2000):
            chunk = b"x" * 65536
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
            sent.append(number)

    plant = Plant(tmp_path)

    async with listening(listener(answered_by(application), plant.clock)) as port:
        _, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
        writer.write(HEALTH)
        held = await settled(lambda: len(sent))
        writer.transport.abort()
        await asyncio.sleep(0.05)

    assert 0 < held < 1000


@on_loop
async def test_body_behind_a_slow_answer_waits_at_the_client(tmp_path):
    plant = Plant(tmp_path)
    plant.engine.hold = asyncio.Event()
    size = 64 * 1024 * 1024
    large = request(headers=[("content-length", str(size))])

    async with plant.connect(request(content=CONTENT) + large) as (reader, writer):
        while not plant.engine.calls:
            await asyncio.sleep(0)
        writer.write(bytes(size))
        # The system's buffers take some megabytes; the client does not read the rest.
        await asyncio.sleep(0.3)
        unsent = writer.transport.get_write_buffer_size()
        plant.engine.hold.set()
        answers = [(await read_answer(reader))[0] for _ in range(2)]
        writer.transport.abort()
        await asyncio.sleep(0.01)

    assert unsent > size / 2
    assert answers == [200, 413]


@on_loop
async def test_bodies_behind_a_slow_answer_are_read_in_their_turn(tmp_path):
    plant = Plant(tmp_path)
    plant.engine.hold = asyncio.Event()
    padded = CONTENT + b" " * 100_000

    async with plant.connect(request(content=padded) * 6) as (reader, _):
        while not plant.engine.calls:
            await asyncio.sleep(0)
        plant.engine.hold.set()
        answers = [(await read_answer(reader))[0] for _ in range(6)]

    assert answers == [200] * 6


@on_loop
async def test_client_that_half_closes_is_let_go(tmp_path):
    plant = Plant(tmp_path)
    plant.engine.hold = asyncio.Event()

    async with plant.connect(request(content=CONTENT)) as (reader, writer):
        while not plant.engine.calls:
            await asyncio.sleep(0)
        writer.write_eof()
        assert await reader.read() == b""

    assert plant.metrics.abandoned == 1


@on_loop
async def test_answer_without_a_header_of_its_own_has_a_whole_head(tmp_path):
    async def application(scope, receive, send):
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    plant = Plant(tmp_path)

    async with listening(listener(answered_by(application), plant.clock)) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(HEALTH)
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 30)
        writer.close()

    assert head.startswith(b"HTTP/1.1 204 No Content\r\ndate: ")
    assert head.count(b"\r\n") == 3


@on_loop
async def test_a_bad_request_behind_others_leaves_them_their_answers(tmp_path):
    plant = Plant(tmp_path)
    broken = request(content=b"zz\r\n", headers=[("transfer-encoding", "chunked")])

    async with plant.connect(request(content=CONTENT) + broken) as (reader, _):
        answers = [await read_answer(reader) for _ in range(2)]

    assert [answer and answer[0] for answer in answers] == [200, None]
    assert plant.metrics.abandoned == 0


@on_loop
async def test_reading_goes_on_behind_an_answer_that_left_a_large_body(tmp_path):
    plant = Plant(tmp_path)
    body = b"x" * 300_000
    unread = b"POST /internal/x HTTP/1.1\r\nhost: x\r\ncontent-length: 300000\r\n\r\n"

    async with plant.connect(unread + body) as (reader, writer):
        first = await read_answer(reader)
        writer.write(request(content=CONTENT))
        second = await read_answer(reader)

    assert (first[0], second[0]) == (404, 200)


@pytest.mark.parametrize(
    ("bytes_per_s", "stays"), [(0, False), (200, False), (2000, True)]
)
@on_loop
async def test_a_client_must_read_at_a_least_rate(tmp_path, bytes_per_s, stays):
    async def application(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        part = {"type": "http.response.body", "body": bytes(1000), "more_body": True}
        while True:
            await send(part)

    plant = Plant(tmp_path)
    serving = listener(answered_by(application), plant.clock)

    async with listening(serving) as port:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.transport.pause_reading()
        writer.write(HEALTH)
        while not serving.connections:
            await asyncio.sleep(0)
        [connection] = serving.connections
        socket = FakeSocket(connection)
        while not socket.get_write_buffer_size():
            await asyncio.sleep(0)
        for _ in range(100):
            socket.drain(bytes_per_s)
            plant.clock.advance(1)
            serving.sweep()
            await asyncio.sleep(0)
        there = bool(serving.connections)
        writer.transport.abort()

    assert there == stays
    assert serving.cut_off == (not stays)


class FakeSocket:
    """A transport whose client reads as much as the test says."""

    def __init__(self, connection):
        self._transport = connection._transport
        self._connection = connection
        connection._transport = self
        self._unread = 0

    def __getattr__(self, name):
        return getattr(self._transport, name)

    def write(self, data):
        self._unread += len(data)
        if self._unread > 65536:
            self._connection.pause_writing()

    def get_write_buffer_size(self):
        return self._unread

    def drain(self, size):
        self._unread -= min(size, self._unread)
        if self._unread < 16384:
            self._connection.resume_writing()


@on_loop
async def test_one_address_has_half_of_the_connections(tmp_path):
    plant = Plant(tmp_path)
    serving = listener(plant.app.read, plant.clock, max_connections=4)

    async with listening(serving) as port:
        ends = [
            await asyncio.open_connection(
                "127.0.0.1", port, local_addr=(f"127.0.0.{end}", 0)
            )
            for end in (2, 2, 2, 3)
        ]
        statuses = []
        for reader, writer in ends:
            with contextlib.suppress(ConnectionResetError):
                writer.write(HEALTH)
                statuses.append(((await read_answer(reader)) or [None])[0])
        for _, writer in ends:
            writer.transport.abort()

    assert statuses.count(200) == 3
    assert serving.places.refused == 1


@on_loop
async def test_a_trusted_proxy_has_all_of_the_connections(tmp_path):
    serving = Listener(
        answered_by(None),
        header_timeout_s=10,
        idle_timeout_s=30,
        max_connections=2,
        trusted_proxies=Networks(["127.0.0.0/8"]),
    )

    async with listening(serving) as port:
        ends = [await asyncio.open_connection("127.0.0.1", port) for _ in range(2)]
        while len(serving.connections) < 2:
            await asyncio.sleep(0)
        for _, writer in ends:
            writer.transport.abort()

    assert serving.places.refused == 0
