import contextlib
import http.server
import json
import os
import signal
import socketserver
import subprocess
import sys
import threading
from pathlib import Path

import httpx
import pytest

from accounts.models import QuotaCounter
from benchmarks.ports import free_port
from inference.installation.home import Home
from tests.accounts.quotas.test_leases import DAY
from tests.factories import CustomerFactory

ROOT = Path(__file__).resolve().parents[3]


def body(customer, **changes):
    return {
        "holder": "boot",
        "customer_id": customer.pk,
        "quota": "day",
        "unit": "rows",
        "window_start": DAY,
        "units": 10,
        "minimum": 1,
    } | changes


@pytest.fixture
def customer(db):
    return CustomerFactory(plan__daily_quota=15)


@pytest.fixture
def post(client):
    def send(path, data, **extra):
        # What gunicorn says of a client on a Unix socket.
        extra = {"REMOTE_ADDR": ""} | extra
        return client.post(path, data, content_type="application/json", **extra)

    return send


def test_units_are_lent_over_http(post, customer):
    first = post("/internal/leases", body(customer)).json()
    second = post("/internal/leases", body(customer)).json()

    assert (first["units"], first["remaining"]) == (10, 5)
    assert (second["units"], second["remaining"]) == (5, 0)


@pytest.fixture
def public(settings):
    """Guard people's requests as docs/deployment.md says."""
    settings.ALLOWED_HOSTS = ["models.example.com"]
    settings.SECURE_SSL_REDIRECT = True


def test_what_guards_peoples_requests_does_not_stop_a_gateways(public, post, customer):
    lent = post("/internal/leases", body(customer), HTTP_HOST="localhost")
    nothing = post("/internal/other", {}, HTTP_HOST="localhost")

    assert (lent.status_code, lent.json()["units"]) == (200, 10)
    assert nothing.status_code == 404


@pytest.mark.parametrize(
    "origin",
    [{"REMOTE_ADDR": "10.0.0.9"}, {"REMOTE_ADDR": "", "HTTP_X_FORWARDED_FOR": "x"}],
)
def test_a_call_from_outside_passes_nothing_by_its_path(public, post, customer, origin):
    answer = post("/internal/leases", body(customer), HTTP_HOST="localhost", **origin)

    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "INVALID_HEADER"


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_health_is_told_to_those_who_know_no_host_name(public, client, db, path):
    assert client.get(path, HTTP_HOST="10.1.2.3:8000").status_code in (200, 503)


def test_units_are_given_up_over_http(post, customer):
    post("/internal/leases", body(customer, number=1, minimum=10))

    given_up = body(customer, number=2, units=0, minimum=0, leased=3)
    response = post("/internal/leases", given_up)

    assert response.json()["remaining"] == 12
    assert QuotaCounter.objects.get().granted == 3


def test_a_gateway_is_asked_for_its_units_before_another_is_refused(
    post, customer, settings, tmp_path
):
    settings.HOME = Home(tmp_path)
    settings.HOME.prepare()
    post("/internal/leases", body(customer, number=4, units=15, minimum=15))

    with answering(settings.HOME.gateway_socket("gateway-2", "boot")) as asked:
        response = post("/internal/leases", body(customer, holder="other", number=1))

    assert response.json()["units"] >= 1
    assert json.loads(asked[0]) == {
        "customer_id": customer.pk,
        "key_id": "",
        "quota": "day",
        "unit": "rows",
        "window_start": DAY,
    }


def test_a_gateway_that_is_gone_cannot_give_units_back(post, customer):
    post("/internal/leases", body(customer, number=1, units=15, minimum=15))

    response = post("/internal/leases", body(customer, holder="other", number=1))

    assert response.json()["units"] == 0


@contextlib.contextmanager
def answering(path):
    """Run a gateway that gives up 12 units; yield the bodies that it gets."""
    bodies = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            bodies.append(self.rfile.read(int(self.headers["content-length"])))
            answer = b'{"units": 12, "number": 4}'
            self.send_response(200)
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def address_string(self):
            return "a Unix socket"

        def log_message(self, *args):
            pass

    with socketserver.UnixStreamServer(str(path), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield bodies
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize(
    "origin",
    [
        {"REMOTE_ADDR": "127.0.0.1"},
        {"REMOTE_ADDR": "", "HTTP_X_FORWARDED_FOR": "203.0.113.7"},
        {"REMOTE_ADDR": "", "HTTP_FORWARDED": "for=203.0.113.7"},
    ],
)
def test_nothing_is_lent_to_the_outside(post, customer, origin):
    response = post("/internal/leases", body(customer), **origin)

    assert response.status_code == 404
    assert not QuotaCounter.objects.exists()


@pytest.mark.parametrize(
    "change", [{"units": "ten"}, {"window_start": DAY + 1}, {"extra": 1}]
)
def test_a_malformed_request_is_refused(post, customer, change):
    response = post("/internal/leases", body(customer, **change))

    assert response.status_code == 400


def test_reading_is_not_answered(client, db):
    assert client.get("/internal/leases", REMOTE_ADDR="").status_code == 405


@pytest.mark.processes
def test_gunicorn_tells_its_socket_from_a_port(tmp_path):
    """Serve the site on both sockets with gunicorn, as the views rely on it."""
    port = free_port()
    path = tmp_path / "s.sock"
    server = subprocess.Popen(
        [
            sys.executable,
            *("-m", "gunicorn", "config.wsgi", "--chdir", str(ROOT)),
            *("--pythonpath", f"{ROOT},{ROOT / 'platform'}", "--log-level", "warning"),
            *("--bind", f"unix:{path}", "--bind", f"127.0.0.1:{port}"),
        ],
        env=os.environ | {"MODELYARD_HOME": str(tmp_path / "home")},
    )
    try:
        _wait_for(path, server)
        transport = httpx.HTTPTransport(uds=str(path))
        with httpx.Client(transport=transport, timeout=60) as inside:
            inner = inside.post("http://localhost/internal/leases", content="{}")
        outer = httpx.post(
            f"http://127.0.0.1:{port}/internal/leases", content="{}", timeout=60
        )
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(60)

    assert inner.status_code == 400
    assert outer.status_code == 404


def _wait_for(path, server):
    """Wait until the server listens; it opens all its sockets before it answers."""
    for _ in range(300):
        if path.exists():
            return
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.wait(0.1)
            raise AssertionError("gunicorn ended")
    raise AssertionError("gunicorn did not come up")
