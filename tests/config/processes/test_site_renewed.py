"""A site of new code takes over from an old one, and no page waits for its imports."""

import sys
import time
from dataclasses import replace

import httpx
import msgspec
import psutil
import pytest

from config.processes.specs import process_specs
from config.processes.supervisor import Supervisor
from inference.installation.home import Home
from tests.callers import Callers

pytestmark = pytest.mark.processes

# Like the real one, it takes a while to import.
IMPORT_S = 3
APPLICATION = f"""
import os, time
time.sleep({IMPORT_S})

def application(environ, start_response):
    start_response("200 OK", [("content-length", "3")])
    return [b"yes"]
"""
WHERE = {"site": "site_socket", "internal": "internal_socket"}


def spec_of(name, folder):
    """Return the real process with another application."""
    [spec] = [spec for spec in process_specs() if spec.name == name]
    (folder / "slow_site.py").write_text(APPLICATION)
    command = [
        "slow_site:application" if it == "config.wsgi:application" else it
        for it in spec.command
    ]
    path = ":".join([str(folder), *sys.path])
    return replace(
        spec,
        command=tuple(command),
        environment={**spec.environment, "PYTHONPATH": path},
    )


@pytest.fixture
def home(tmp_path, settings):
    settings.HOME = Home(tmp_path / "home")
    settings.HOME.prepare()
    return settings.HOME


def until(supervisor, condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        supervisor.tend()
        time.sleep(0.02)


def get(client):
    return client.get("http://site/", timeout=60)


def renew(supervisor):
    supervisor.request_renewal()
    supervisor.tend()
    until(supervisor, lambda: supervisor._renewing is None)


def table(spec):
    printed = msgspec.json.encode([spec]).decode()
    return (sys.executable, "-c", f"print({printed!r})")


@pytest.mark.parametrize("name", WHERE)
def test_no_call_waits_for_the_imports_of_a_new_site(home, tmp_path, name):
    spec = spec_of(name, tmp_path)
    path = getattr(home, WHERE[name])
    supervisor = Supervisor((spec,), home=home, process_table=table(spec))
    supervisor.start()
    try:
        # Where nobody answers yet, callers wait.
        until(supervisor, path.exists)
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(path))) as first:
            assert get(first).text == "yes"
        before = psutil.Process(supervisor.pids()[name])
        with Callers(get, get, socket=str(path)) as callers:
            # The second time, the one that takes over was itself a successor.
            for _ in range(2):
                renew(supervisor)
            time.sleep(0.3)
        after = supervisor.pids()
    finally:
        supervisor.stop()

    assert callers.failures == []
    assert callers.calls > 100
    assert max(callers.seconds) < IMPORT_S / 2
    assert not before.is_running()
    assert set(after) == {name}
    # Each removes its own socket when it ends.
    assert [it.name for it in home.run.glob(f"{name}.*.sock")] == []


def test_a_site_that_cannot_be_imported_does_not_take_over(home, tmp_path):
    spec = spec_of("site", tmp_path)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "slow_site.py").write_text("1 / 0")
    path = ":".join([str(tmp_path / "broken"), *sys.path])
    broken = replace(spec, environment={**spec.environment, "PYTHONPATH": path})
    supervisor = Supervisor((spec,), home=home, process_table=table(broken))
    supervisor.start()
    try:
        until(supervisor, home.site_socket.exists)
        with httpx.Client(
            transport=httpx.HTTPTransport(uds=str(home.site_socket))
        ) as first:
            assert get(first).text == "yes"
        before = supervisor.pids()
        with Callers(get, socket=str(home.site_socket)) as callers:
            renew(supervisor)
        after = supervisor.pids()
    finally:
        supervisor.stop()

    assert callers.failures == []
    assert after == before
