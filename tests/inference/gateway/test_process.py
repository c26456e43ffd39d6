"""The real process: its start, size, imports, headers and end."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time

import grpc
import httpx
import psutil
import pytest

from benchmarks.ports import free_port
from inference.dialects.open_inference.open_inference_pb2 import ModelInferRequest
from inference.installation.home import Home
from inference.snapshot import snapshot_file
from tests.inference.gateway.plant import GOOD, KEY, PREDICT, published

pytestmark = pytest.mark.processes

FORBIDDEN = ("django", "torch", "mlflow", "shap", "pandas", "scipy", "sklearn")


@contextlib.contextmanager
def gateway(home, **environment):
    """Run a gateway; yield its process and base URL once it answers."""
    port, operator_port = free_port(), free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "inference.gateway"],
        env=os.environ
        | {
            "MODELYARD_HOME": str(home.root),
            "MODELYARD_PORT": str(port),
            "MODELYARD_OPERATOR_PORT": str(operator_port),
            "LOG_LEVEL": "WARNING",
        }
        | environment,
        stderr=subprocess.PIPE,
        text=True,
    )
    url = f"http://127.0.0.1:{port}"
    try:
        until_answering(process, url)
        yield process, url
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


def until_answering(process, url):
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        assert process.poll() is None, process.stderr.read()
        with contextlib.suppress(httpx.TransportError):
            httpx.get(f"{url}/healthz", timeout=10, verify=False)
            return
        time.sleep(0.01)
    raise AssertionError("the gateway did not answer")


@pytest.fixture
def home(tmp_path):
    home = Home(tmp_path)
    home.prepare()
    snapshot_file.write(home.snapshot, published())
    return home


def ask(url, **headers):
    return httpx.post(
        f"{url}{PREDICT}",
        json=GOOD,
        headers={"authorization": f"Bearer {KEY.token}"} | headers,
        timeout=30,
        verify=False,
    )


def test_gateway_imports_nothing_heavy():
    listing = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys, json, inference.gateway.__main__; "
            "print(json.dumps(sorted({n.partition('.')[0] for n in sys.modules})))",
        ],
        capture_output=True,
        text=True,
        check=True,
    )

    assert not set(json.loads(listing.stdout)) & {*FORBIDDEN, "grpc"}


@pytest.mark.parametrize("with_grpc", [False, True])
def test_gateway_is_small_and_starts_fast(home, with_grpc):
    grpc_port = str(free_port() if with_grpc else 0)

    with gateway(home, MODELYARD_GRPC_PORT=grpc_port) as (process, url):
        # Processor time; the time on the clock depends on other processes.
        spent = psutil.Process(process.pid).cpu_times()
        for _ in range(20):
            assert ask(url).status_code == 503
        rss = psutil.Process(process.pid).memory_info().rss

    assert rss < 100 * 1024 * 1024
    assert spent.user + spent.system < 2


def test_every_answer_has_its_event_and_sigterm_ends_the_process(home):
    with gateway(home) as (process, url):
        ids = [ask(url).headers["x-request-id"] for _ in range(5)]
        process.send_signal(signal.SIGTERM)
        code = process.wait(timeout=60)

    from accounts.metering.spool import is_being_written, read_events

    [path] = home.spool.iterdir()
    assert [event.request_id for event, _ in read_events(path)] == ids
    assert not is_being_written(path)
    assert code == 0


def test_port_in_use_is_said_in_a_sentence(home):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        process = subprocess.run(
            [sys.executable, "-m", "inference.gateway"],
            env=os.environ
            | {"MODELYARD_HOME": str(home.root), "MODELYARD_PORT": str(port)},
            capture_output=True,
            text=True,
        )

    assert process.returncode == 1
    assert process.stderr.startswith(f"The gateway cannot listen on 127.0.0.1:{port}")


def raw(url, *chunks):
    """Send bytes and read until the server closes the connection."""
    port = int(url.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        received = b""
        try:
            for chunk in chunks:
                connection.sendall(chunk)
            while data := connection.recv(65536):
                received += data
        except (BrokenPipeError, ConnectionResetError):
            pass
        return received


def test_what_is_no_http_is_refused_in_the_contracts_shape(home):
    with gateway(home) as (_, url):
        answer = raw(url, b"nonsense\r\n\r\n")
        still_there = httpx.get(f"{url}/healthz").status_code

    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert json.loads(body)["error"]["code"] == "INVALID_HEADER"
    assert still_there == 200


def test_answers_without_a_body_arrive(home):
    with gateway(home) as (_, url):
        answer = httpx.head(f"{url}/healthz")

    assert (answer.status_code, answer.headers["content-length"]) == (200, "2")


def test_client_that_asks_before_it_sends_is_told_to_go_on(home):
    head = f"POST {PREDICT} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n"
    head += f"authorization: Bearer {KEY.token}\r\ncontent-type: application/json\r\n"
    content = json.dumps(GOOD).encode()
    head += f"content-length: {len(content)}\r\nexpect: 100-continue\r\n\r\n"

    with gateway(home) as (_, url):
        port = int(url.rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
            connection.sendall(head.encode())
            invited = connection.recv(1000)
            connection.sendall(content)
            answer = connection.recv(1000)

    assert invited == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert b"connection: close" in answer


def test_pipelined_requests_are_answered_in_order(home):
    def request(request_id, extra=""):
        content = json.dumps(GOOD)
        return (
            f"POST {PREDICT} HTTP/1.1\r\nhost: x\r\nx-request-id: {request_id}\r\n"
            f"authorization: Bearer {KEY.token}\r\n{extra}"
            f"content-length: {len(content)}\r\n\r\n{content}"
        )

    with gateway(home) as (_, url):
        sent = request("a") + request("b") + request("c", "connection: close\r\n")
        answer = raw(url, sent.encode())

    places = [answer.index(b"x-request-id: %b" % name) for name in (b"a", b"b", b"c")]
    assert answer.count(b"HTTP/1.1 503 ") == 3
    assert places == sorted(places)


def test_endless_headers_are_cut_off(home):
    with gateway(home) as (process, url):
        chunks = [b"GET / HTTP/1.1\r\n"]
        chunks += [b"x-%d: %b\r\n" % (n, b"y" * 4000) for n in range(2000)]
        raw(url, *chunks)
        rss = psutil.Process(process.pid).memory_info().rss

    assert rss < 100 * 1024 * 1024


def test_headers_that_trickle_in_are_cut_off(home):
    with gateway(home, MODELYARD_HEADER_TIMEOUT_S="1") as (_, url):
        began = time.monotonic()
        raw(url, b"GET / HTTP/1.1\r\nhost: x\r\n")
        took_s = time.monotonic() - began

    assert took_s < 8


def test_grpc_port_answers_and_ends_with_the_gateway(home):
    port = free_port()
    request = ModelInferRequest(model_name="m").SerializeToString()

    with (
        gateway(home, MODELYARD_GRPC_PORT=str(port)) as (process, _),
        grpc.insecure_channel(f"127.0.0.1:{port}") as channel,
    ):
        call = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        with pytest.raises(grpc.RpcError) as caught:
            call(request, metadata=[("x-api-key", KEY.token)], timeout=60)
        started = time.monotonic()
        process.send_signal(signal.SIGTERM)
        code = process.wait(60)
        took_s = time.monotonic() - started

    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert code == 0
    assert took_s < 10


def test_a_taken_grpc_port_is_said(home):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        ended = subprocess.run(
            [sys.executable, "-m", "inference.gateway"],
            env=os.environ
            | {
                "MODELYARD_HOME": str(home.root),
                "MODELYARD_PORT": "0",
                "MODELYARD_GRPC_PORT": str(port),
            },
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    assert ended.returncode == 1
    assert f"cannot listen on 127.0.0.1:{port} for gRPC" in ended.stderr
