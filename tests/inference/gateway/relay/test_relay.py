import asyncio
import contextlib
import json
import random
import socket
import time

import httpx
import pytest

from inference.gateway.relay import relay
from inference.gateway.relay.buffers import MEMORY_BYTES
from tests.inference.gateway.plant import Plant, read_answer
from tests.inference.gateway.test_app import on_loop, turns
from tests.waiting import until


def body(message=b"", *, more=False):
    return {"type": "http.request", "body": message, "more_body": more}


@on_loop
async def test_other_paths_come_from_the_site(tmp_path):
    plant = Plant(tmp_path)
    plant.site.answer = httpx.Response(
        201, headers=[("set-cookie", "a=1"), ("set-cookie", "b=2")], content=b"hello"
    )

    answer = await plant.ask("/admin/x%2Fy/?q=1&q=2", b"sent", method="PUT")

    assert (answer.status_code, answer.content) == (201, b"hello")
    assert answer.headers.get_list("set-cookie") == ["a=1", "b=2"]
    [request] = plant.site.requests
    assert request.method == "PUT"
    assert request.url.raw_path == b"/admin/x%2Fy/?q=1&q=2"
    assert plant.site.bodies == [b"sent"]


@on_loop
async def test_who_the_client_is_is_said_by_the_gateway_alone(tmp_path):
    plant = Plant(tmp_path)
    lies = {
        "x-forwarded-for": "1.2.3.4",
        "x-forwarded-host": "evil",
        "x-forwarded-proto": "https",
        "x-forwarded-ssl": "on",
        "x-forwarded-protocol": "ssl",
        "x_forwarded_proto": "https",
        "script_name": "/evil",
        "path_info": "/evil",
        "forwarded": "for=1.2.3.4",
        "x-real-ip": "1.2.3.4",
        "x-request-id": "bad id",
    }

    await plant.ask("/docs/", method="GET", headers=lies)

    [request] = plant.site.requests
    assert request.headers["x-forwarded-for"] == "127.0.0.1"
    assert request.headers["x-forwarded-host"] == "public"
    assert request.headers["x-forwarded-proto"] == "http"
    assert request.headers["x-request-id"].startswith("req_")
    ours = {"for", "host", "proto"}
    assert not {"forwarded", "x-real-ip"} & set(request.headers)
    assert not [name for name in request.headers if "_" in name]
    assert {
        name.removeprefix("x-forwarded-")
        for name in request.headers
        if name.startswith("x-forwarded-")
    } == ours


@pytest.mark.parametrize(
    ("trusted", "given", "passed_on"),
    [
        (["127.0.0.0/8"], ["https"], "https"),
        (["127.0.0.0/8"], ["http"], "http"),
        (["127.0.0.0/8"], ["HTTPS , http"], "https"),
        (["127.0.0.0/8"], ["https", "http"], "https"),
        (["127.0.0.0/8"], ["http", "https"], "http"),
        (["127.0.0.0/8"], ["javascript"], "http"),
        (["127.0.0.0/8"], [], "http"),
        (["10.0.0.0/8"], ["https"], "http"),
    ],
)
@on_loop
async def test_scheme_of_a_call_is_taken_from_a_trusted_proxy(
    tmp_path, trusted, given, passed_on
):
    plant = Plant(tmp_path, trusted_proxies=trusted)
    lines = b"".join(b"X-Forwarded-Proto: %b\r\n" % text.encode() for text in given)

    async with plant.connect(b"GET /docs/ HTTP/1.1\r\nHost: x\r\n%b\r\n" % lines) as (
        reader,
        _,
    ):
        await read_answer(reader)

    [request] = plant.site.requests
    assert request.headers.get_list("x-forwarded-proto") == [passed_on]


@on_loop
async def test_answer_of_the_site_is_framed_once(tmp_path):
    plant = Plant(tmp_path)
    # Header names in the case that gunicorn writes.
    plant.site.answer = httpx.Response(
        200,
        headers={"Content-Length": "5", "X-Request-ID": "site", "Connection": "Close"},
        content=b"hello",
    )

    async with plant.connect(b"GET /docs/ HTTP/1.1\r\nHost: x\r\n\r\n") as (
        reader,
        _,
    ):
        head = await reader.readuntil(b"\r\n\r\n")
        body = await reader.readexactly(5)

    names = [line.partition(b":")[0] for line in head.splitlines()[1:-1]]
    assert sorted(names) == [b"content-length", b"date", b"x-request-id"]
    assert body == b"hello"


@on_loop
async def test_answer_of_the_site_that_is_chunked_has_no_length(tmp_path):
    plant = Plant(tmp_path)
    # A middleware may set a length, and the server still sends chunks.
    plant.site.answer = httpx.Response(
        200,
        headers={
            "Content-Length": "99",
            "Transfer-Encoding": "Chunked",
            "X-Request-ID": "site",
        },
        content=b"hello",
    )

    async with plant.connect(b"GET /docs/ HTTP/1.1\r\nHost: x\r\n\r\n") as (
        reader,
        _,
    ):
        head = await reader.readuntil(b"\r\n\r\n")
        names = [line.partition(b":")[0] for line in head.splitlines()[1:-1]]
        assert sorted(names) == [b"date", b"transfer-encoding", b"x-request-id"]
        body = await reader.readuntil(b"0\r\n\r\n")

    assert body == b"5\r\nhello\r\n0\r\n\r\n"


@on_loop
async def test_headers_of_one_hop_are_not_passed_on(tmp_path):
    plant = Plant(tmp_path)
    plant.site.answer = httpx.Response(
        200, headers={"connection": "x-private", "x-private": "1", "x-public": "2"}
    )

    answer = await plant.ask(
        "/x",
        method="GET",
        headers={"connection": "x-secret, authorization", "x-secret": "1", "te": "x"},
    )

    [request] = plant.site.requests
    assert not {"connection", "x-secret", "te"} & set(request.headers)
    # A client must not remove these by naming them in `Connection`.
    assert "authorization" in request.headers
    assert "x-private" not in answer.headers
    assert answer.headers["x-public"] == "2"


@on_loop
async def test_request_id_of_the_caller_is_passed_on_and_returned(tmp_path):
    plant = Plant(tmp_path)

    answer = await plant.ask("/x", method="GET", headers={"x-request-id": "mine"})

    assert plant.site.requests[0].headers["x-request-id"] == "mine"
    assert answer.headers["x-request-id"] == "mine"


@on_loop
async def test_site_that_is_away_is_said_in_the_contracts_shape(tmp_path):
    plant = Plant(tmp_path)
    plant.site.failure = httpx.ConnectError("no such socket")

    answer = await plant.ask("/api/v1/me", method="GET")

    assert answer.status_code == 503
    assert answer.json()["error"]["code"] == "OVERLOADED"
    assert int(answer.headers["retry-after"]) >= 1


@on_loop
async def test_people_get_a_page_when_the_site_is_away(tmp_path):
    plant = Plant(tmp_path)
    plant.site.failure = httpx.ConnectError("no such socket")

    headers = b"host: public\r\naccept: */*\r\naccept: text/html\r\n"
    async with plant.connect(b"GET /admin/ HTTP/1.1\r\n%b\r\n" % headers) as (
        reader,
        _,
    ):
        in_two_fields = await read_answer(reader)
    assert in_two_fields[1]["content-type"].startswith("text/html")

    answer = await plant.ask(
        "/admin/", method="GET", headers={"accept": "text/html,*/*"}
    )

    assert answer.status_code == 503
    assert answer.headers["content-type"].startswith("text/html")
    assert int(answer.headers["content-length"]) == len(answer.content)


@on_loop
async def test_broken_connection_is_tried_again_if_nothing_was_sent(tmp_path):
    plant = Plant(tmp_path)
    plant.site.failure = httpx.RemoteProtocolError("closed")

    await plant.ask("/x", method="GET")
    await plant.ask("/y", b"sent")

    assert plant.site.paths() == {"/x": 2, "/y": 1}


@pytest.mark.parametrize("said", [True, False])
@on_loop
async def test_upload_over_the_bound_is_refused(tmp_path, said):
    plant = Plant(tmp_path)
    headers = (
        [(b"content-length", b"1200")] if said else [(b"transfer-encoding", b"chunked")]
    )

    task, sent, _ = plant.start(
        [body(b"x" * 600, more=True), body(b"x" * 600)], path="/up", headers=headers
    )
    await task

    assert sent[0]["status"] == 413


@on_loop
async def test_upload_that_stops_times_out(tmp_path):
    plant = Plant(tmp_path)
    task, sent, _ = plant.start(
        [body(b"x", more=True)],
        path="/up",
        headers=[(b"transfer-encoding", b"chunked")],
    )
    await turns()

    plant.clock.advance(6)
    plant.bodies.sweep()
    await task

    assert sent[0]["status"] == 408


@pytest.mark.parametrize(
    ("status", "answered", "code"),
    [(400, 400, "INVALID_HEADER"), (502, 500, "INTERNAL_ERROR")],
)
@on_loop
async def test_errors_of_the_sites_server_come_in_our_shape(
    tmp_path, status, answered, code
):
    plant = Plant(tmp_path)
    plant.site.answer = httpx.Response(status, html="<h1>gunicorn</h1>")

    answer = await plant.ask("/x", method="GET")

    assert (answer.status_code, answer.json()["error"]["code"]) == (answered, code)
    assert answer.headers["x-request-id"] == answer.json()["error"]["request_id"]


LARGE = 300_000
CHUNKED = [(b"transfer-encoding", b"chunked")]


@on_loop
async def test_site_is_not_asked_before_a_short_body_is_complete(tmp_path):
    plant = Plant(tmp_path)
    messages = asyncio.Queue()
    task, sent, _ = plant.start(messages, path="/up", headers=CHUNKED)

    messages.put_nowait(body(b"slow", more=True))
    await turns()
    before = list(plant.site.requests)
    messages.put_nowait(body(b"ly"))
    await task

    assert before == []
    assert plant.site.bodies == [b"slowly"]
    assert sent[0]["status"] == 200


@on_loop
async def test_a_byte_now_and_then_is_no_progress(tmp_path):
    plant = Plant(tmp_path)
    messages = asyncio.Queue()
    task, sent, _ = plant.start(messages, path="/up", headers=CHUNKED)

    for _ in range(3):
        messages.put_nowait(body(b"x", more=True))
        await turns()
        plant.clock.advance(2)
        plant.bodies.sweep()
    await task

    assert sent[0]["status"] == 408
    assert plant.site.requests == []


@on_loop
async def test_bodies_under_way_keep_nothing_of_the_site(tmp_path):
    plant = Plant(tmp_path, max_upload_bytes=10**7)
    start = body(b"x" * LARGE, more=True)
    open_ones = [asyncio.Queue() for _ in range(20)]
    under_way = []
    for messages in open_ones:
        messages.put_nowait(start)
        under_way.append(plant.start(messages, path="/up", headers=CHUNKED))
    await until(lambda: plant.held.used >= 20 * LARGE)

    asked = list(plant.site.requests)
    small = await plant.ask("/x", b"sent")
    for messages in open_ones:
        messages.put_nowait(body(b"end"))
    await asyncio.gather(*(task for task, *_ in under_way))

    assert asked == []
    assert small.status_code == 200
    assert [sent[0]["status"] for _, sent, _ in under_way] == [200] * len(open_ones)
    assert plant.site.bodies[1:] == [b"x" * LARGE + b"end"] * len(open_ones)
    assert plant.held.used == plant.buffers.memory_bytes == 0


@on_loop
async def test_bodies_over_the_share_of_one_customer_are_refused(tmp_path):
    plant = Plant(tmp_path, max_upload_bytes=10**7, max_relayed_bytes=16_000_000)
    announced = [(b"content-length", b"3000000")]

    first, sent, _ = plant.start(asyncio.Queue(), path="/up", headers=announced)
    await until(lambda: plant.held.used)
    second, refused, _ = plant.start(asyncio.Queue(), path="/up", headers=announced)
    await second
    stranger = await plant.ask("/x", b"sent", headers={"authorization": ""})
    first.cancel()
    await asyncio.wait((first,))

    assert sent == []
    assert refused[0]["status"] == 503
    assert dict(refused[0]["headers"])[b"retry-after"]
    assert stranger.status_code == 200
    assert plant.held.used == 0


@on_loop
async def test_one_body_may_take_most_of_all_and_is_answered(tmp_path):
    most = 2_000_000
    plant = Plant(
        tmp_path, max_upload_bytes=most, max_relayed_bytes=most + MEMORY_BYTES
    )

    answer = await plant.ask("/up", bytes(most))

    assert answer.status_code == 200
    assert plant.held.used == 0


@pytest.mark.parametrize("said", [True, False])
@on_loop
async def test_a_large_body_needs_a_key(tmp_path, said):
    plant = Plant(tmp_path, max_upload_bytes=10**8)
    size = relay.MAX_STRANGERS_BYTES + 1
    content = bytes(size) if said else pieces(bytes(size))

    stranger = await plant.ask("/up", content, headers={"authorization": ""})
    customer = await plant.ask("/up", content if said else pieces(bytes(size)))

    assert stranger.status_code == 413
    assert stranger.json()["error"]["code"] == "TOO_LARGE"
    assert customer.status_code == 200
    assert [len(sent) for sent in plant.site.bodies] == [size]


async def pieces(content):
    for start in range(0, len(content), 1_000_000):
        yield content[start : start + 1_000_000]


@on_loop
async def test_a_large_body_for_a_signed_address_counts_for_its_customer(tmp_path):
    plant = Plant(tmp_path, max_upload_bytes=10**8)
    plant.site.answer = httpx.Response(200, json={"customer_id": 7})
    path = "/api/v1/uploads/upl_1/content?signature=s%3D"
    content = bytes(relay.MAX_STRANGERS_BYTES + 1)

    answer = await plant.ask(path, content, method="PUT", headers={"authorization": ""})

    assert answer.status_code == 200
    owner, sent = plant.site.requests
    assert owner.url.raw_path == b"/internal/uploads/upl_1/owner?signature=s%3D"
    assert "x-forwarded-for" not in owner.headers
    assert sent.url.raw_path == path.encode()


@on_loop
async def test_an_answer_that_nobody_reads_keeps_nothing_of_the_site(tmp_path):
    plant = Plant(tmp_path)
    content = random.Random(1).randbytes(20_000_000)
    plant.site.answer = httpx.Response(200, stream=Pieces(content))
    plant.turns = relay_turns = plant.app._relay.turns

    async with plant.connect() as (reader, writer):
        reader._transport.pause_reading()
        writer.write(b"GET /large HTTP/1.1\r\nhost: x\r\n\r\n")
        await until(lambda: plant.site.answer.stream.closed)
        held = plant.held.used, plant.buffers.memory_bytes
        reader._transport.resume_reading()
        head = await reader.readuntil(b"\r\n\r\n")
        received = await unchunked(reader)

    assert b"transfer-encoding: chunked" in head
    assert received == content
    # The sockets' own buffers hold some megabytes of it.
    assert 10_000_000 < held[0] <= len(content)
    assert held[1] <= MEMORY_BYTES
    assert relay_turns.used == plant.held.used == plant.buffers.memory_bytes == 0


@on_loop
async def test_answers_over_the_share_of_one_address_are_refused(tmp_path):
    plant = Plant(tmp_path, max_relayed_bytes=100_000_000)
    content = bytes(9_000_000)
    plant.site.answer = httpx.Response(200, content=content)

    async with plant.connect() as (reader, writer):
        reader._transport.pause_reading()
        writer.write(b"GET /large HTTP/1.1\r\nhost: x\r\n\r\n")
        await until(lambda: plant.held.used == len(content))
        await until(lambda: plant.site.requests)
        stranger = {"authorization": ""}
        refused = await plant.ask("/large", method="GET", headers=stranger)
        customer = await plant.ask("/large", method="GET")

    assert refused.status_code == 503
    assert refused.json()["error"]["code"] == "OVERLOADED"
    assert customer.content == content


@on_loop
async def test_an_answer_that_breaks_off_ends_the_connection(tmp_path):
    plant = Plant(tmp_path)
    broken = Pieces(bytes(200_000), failure=httpx.ReadError("gone"))
    plant.site.answer = httpx.Response(200, stream=broken)

    async with plant.connect(b"GET /x HTTP/1.1\r\nhost: x\r\n\r\n") as (reader, _):
        received = b""
        with contextlib.suppress(ConnectionResetError):
            received = await reader.read(10**7)
            while more := await reader.read(10**7):
                received += more

    assert received.startswith(b"HTTP/1.1 200 OK")
    assert b"\r\n0\r\n\r\n" not in received


class Pieces(httpx.AsyncByteStream):
    """A body that comes in pieces, and may fail before its end."""

    def __init__(self, content, failure=None):
        self._content = content
        self._failure = failure
        self.closed = False

    async def __aiter__(self):
        for start in range(0, len(self._content), 65536):
            yield self._content[start : start + 65536]
        if self._failure is not None:
            raise self._failure

    async def aclose(self):
        self.closed = True


async def unchunked(reader):
    content = bytearray()
    while size := int(await reader.readuntil(b"\r\n"), 16):
        content += await reader.readexactly(size)
        await reader.readexactly(2)
    return bytes(content)


@on_loop
async def test_connection_that_carried_a_body_is_not_used_again(tmp_path):
    # If no view has read a body, the site's server reads it later, and loses the next
    # request on the same connection.
    plant = Plant(tmp_path)

    await plant.ask("/x", b"sent")
    await plant.ask("/x", method="GET")

    first, second = plant.site.requests
    assert first.headers["connection"] == "close"
    assert "connection" not in second.headers


@pytest.mark.parametrize("failure", [httpx.LocalProtocolError, httpx.InvalidURL])
@on_loop
async def test_what_cannot_be_passed_on_is_the_clients_fault(tmp_path, failure):
    plant = Plant(tmp_path)
    plant.site.failure = failure("two Host headers")

    answer = await plant.ask("/api/v1/me", method="GET")

    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "INVALID_HEADER"


@on_loop
async def test_a_request_for_the_site_is_told_that_it_lacks_a_host(
    tmp_path,
):
    plant = Plant(tmp_path)

    async with plant.connect(b"GET /docs/ HTTP/1.0\r\n\r\n") as (reader, _):
        status, _, content = await read_answer(reader)

    assert status == 400
    assert "Host" in json.loads(content)["error"]["message"]
    assert plant.site.requests == []


@on_loop
async def test_asterisk_target_is_refused(tmp_path):
    plant = Plant(tmp_path)

    task, sent, _ = plant.start([body()], path="*")
    await task

    assert sent[0]["status"] == 400


@on_loop
async def test_answer_has_the_date_and_server_of_nobody_else(tmp_path):
    plant = Plant(tmp_path)
    plant.site.answer = httpx.Response(
        200, headers={"date": "yesterday", "server": "gunicorn", "x-public": "1"}
    )

    answer = await plant.ask("/x", method="GET")

    assert answer.headers["date"] != "yesterday"
    assert "server" not in answer.headers
    assert answer.headers["x-public"] == "1"


@on_loop
async def test_a_long_body_that_trickles_is_refused(tmp_path):
    plant = Plant(tmp_path, max_upload_bytes=10 * LARGE)
    messages = asyncio.Queue()
    messages.put_nowait(body(b"x" * LARGE, more=True))
    task, sent, _ = plant.start(messages, path="/up", headers=CHUNKED)
    await turns()

    for _ in range(15):
        messages.put_nowait(body(b"x" * 100, more=True))
        await until(lambda: messages.empty() or task.done())
        await turns()
        plant.clock.advance(2)
        plant.bodies.sweep()
    await task

    assert sent[0]["status"] == 408


@on_loop
async def test_a_long_body_at_the_least_rate_arrives(tmp_path):
    plant = Plant(tmp_path, max_upload_bytes=10 * LARGE)
    messages = asyncio.Queue()
    messages.put_nowait(body(b"x" * LARGE, more=True))
    task, sent, _ = plant.start(messages, path="/up", headers=CHUNKED)
    await turns()

    for _ in range(5):
        messages.put_nowait(body(b"x" * relay.MIN_BYTES_PER_S * 2, more=True))
        await until(lambda: messages.empty() or task.done())
        await turns()
        plant.clock.advance(2)
        plant.bodies.sweep()
    messages.put_nowait(body())
    await task

    assert sent[0]["status"] == 200


class StoppedSite:
    """Accept connections and do nothing, as a stopped process does."""

    def __init__(self, path):
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(str(path))
        self._socket.listen()

    def close(self):
        self._socket.close()


@on_loop
async def test_a_site_that_is_stopped_is_not_waited_for(tmp_path):
    stopped = StoppedSite(tmp_path / "site.sock")
    transport = httpx.AsyncHTTPTransport(uds=str(tmp_path / "site.sock"))
    plant = Plant(tmp_path, site=transport, site_timeout_s=0.1)

    started = time.monotonic()
    answer = await plant.ask("/api/v1/me", method="GET")
    await transport.aclose()
    stopped.close()

    assert time.monotonic() - started < 5
    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) >= 1
