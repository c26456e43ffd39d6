import asyncio
import socket
import time

import httpx
import pytest

from inference.gateway import uploads
from inference.gateway.clients import SlowBodies
from inference.gateway.relay import Relay
from tests.inference.gateway.plant import Plant, read_answer
from tests.inference.gateway.test_app import on_loop, turns


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
    # Names as gunicorn writes them.
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
    # To name these would cut them off on their way to the site.
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
async def test_long_bodies_leave_most_of_the_site_to_others(tmp_path):
    plant = Plant(tmp_path, max_upload_bytes=10 * uploads.HELD_BYTES)
    start = body(b"x" * uploads.HELD_BYTES, more=True)
    open_ones = [asyncio.Queue() for _ in range(uploads.MAX_AT_ONCE)]
    under_way = []
    for messages in open_ones:
        messages.put_nowait(start)
        under_way.append(plant.start(messages, path="/up", headers=CHUNKED))
    await turns()

    task, sent, _ = plant.start([start, body()], path="/up", headers=CHUNKED)
    await task
    small = await plant.ask("/x", b"sent")
    for messages in open_ones:
        messages.put_nowait(body(b"end"))
    await asyncio.gather(*(task for task, *_ in under_way))
    later = await plant.ask("/up", b"x" * (uploads.HELD_BYTES + 1))

    assert sent[0]["status"] == 503
    assert dict(sent[0]["headers"])[b"retry-after"]
    assert small.status_code == 200
    assert [sent[0]["status"] for _, sent, _ in under_way] == [200] * len(open_ones)
    assert later.status_code == 200


@on_loop
async def test_connection_that_carried_a_body_is_not_used_again(tmp_path):
    # The site's server reads on for a body that no view has read, and loses what
    # follows it on the same connection: the next caller would wait in vain.
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
async def test_a_long_body_that_trickles_gives_its_turn_back(tmp_path):
    plant = Plant(tmp_path, max_upload_bytes=10 * uploads.HELD_BYTES)
    messages = asyncio.Queue()
    messages.put_nowait(body(b"x" * uploads.HELD_BYTES, more=True))
    task, sent, _ = plant.start(messages, path="/up", headers=CHUNKED)
    await turns()

    for _ in range(5):
        messages.put_nowait(body(b"x" * 100, more=True))
        await turns()
        plant.clock.advance(2)
        plant.bodies.sweep()
    await task

    assert sent[0]["status"] == 408


@on_loop
async def test_a_long_body_at_the_least_rate_arrives(tmp_path):
    plant = Plant(tmp_path, max_upload_bytes=10 * uploads.HELD_BYTES)
    messages = asyncio.Queue()
    messages.put_nowait(body(b"x" * uploads.HELD_BYTES, more=True))
    task, sent, _ = plant.start(messages, path="/up", headers=CHUNKED)
    await turns()

    for _ in range(5):
        messages.put_nowait(body(b"x" * uploads.MIN_BYTES_PER_S * 2, more=True))
        await turns()
        plant.clock.advance(2)
        plant.bodies.sweep()
    messages.put_nowait(body())
    await task

    assert sent[0]["status"] == 200


class StoppedSite:
    """Accepts connections and does nothing, as a stopped process does."""

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
    relay = Relay(
        transport,
        SlowBodies(time.monotonic),
        max_bytes=1000,
        idle_timeout_s=5,
        site_timeout_s=0.1,
        clock=time.time,
    )
    scope = {
        "type": "http",
        "method": "GET",
        "path": "/api/v1/me",
        "raw_path": b"/api/v1/me",
        "query_string": b"",
        "headers": [(b"host", b"public")],
        "scheme": "http",
        "client": ("127.0.0.1", 1),
    }
    sent = []

    async def send(message):
        sent.append(message)

    started = time.monotonic()
    await relay(scope, None, send, request_id="req_1")
    await transport.aclose()
    stopped.close()

    assert time.monotonic() - started < 5
    assert sent[0]["status"] == 503
    assert int(dict(sent[0]["headers"])[b"retry-after"]) >= 1
