import contextlib
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from accounts.models import QuotaCounter
from tests.accounts.test_leases import DAY
from tests.factories import CustomerFactory

ROOT = Path(__file__).resolve().parents[2]


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
    first = post("/internal/leases", body(customer))
    second = post("/internal/leases", body(customer))

    assert first.json() == {"units": 10, "remaining": 5}
    assert second.json() == {"units": 5, "remaining": 0}


def test_units_are_returned_over_http(post, customer):
    post("/internal/leases", body(customer))
    returned = body(customer)
    del returned["minimum"]

    response = post("/internal/leases/release", returned)

    assert response.json() == {"released": True}
    assert QuotaCounter.objects.get().granted == 0


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
    """Serve the site on both: what the views rely on is gunicorn's doing, not ours."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
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
        server.wait(20)

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
