"""`modelyard check` as an operator runs it, on installations in a bad state."""

import json
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
pytestmark = pytest.mark.processes


def check(home, *arguments, **environment):
    return subprocess.run(
        [sys.executable, "-m", "config", "check", *arguments],
        cwd=ROOT,
        env={**os.environ, "MODELYARD_HOME": str(home), **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )


def codes(finished):
    return {it["code"] for it in json.loads(finished.stdout)["findings"]}


def test_an_empty_home_is_explained_in_words(tmp_path):
    finished = check(tmp_path / "home")

    assert finished.returncode == 2
    assert finished.stderr == ""
    assert "✗ Gateways         Modelyard does not run here" in finished.stdout
    assert f"There is no database at {tmp_path}/home/db.sqlite3." in finished.stdout
    assert "To mend it: sudo modelyard migrate" in finished.stdout
    assert "2 faults" in finished.stdout
    # Looking must not make what it misses.
    assert not (tmp_path / "home" / "db.sqlite3").exists()


@pytest.fixture
def mute_port():
    """A port where connections are accepted, and nothing is ever said."""
    ended = threading.Event()
    with socket.create_server(("127.0.0.1", 0), backlog=50) as server:
        server.settimeout(0.1)
        taken = []

        def accept():
            while not ended.is_set():
                try:
                    taken.append(server.accept()[0])
                except TimeoutError:
                    continue

        thread = threading.Thread(target=accept)
        thread.start()
        yield server.getsockname()[1]
        ended.set()
        thread.join()
        for connection in taken:
            connection.close()


def test_servers_that_say_nothing_are_named(tmp_path, mute_port):
    server = f"127.0.0.1:{mute_port}"

    finished = check(
        tmp_path / "home",
        "--json",
        DATABASE_URL=f"postgres://modelyard@{server}/modelyard",
        CACHE_URL=f"redis://{server}/0",
        CELERY_BROKER_URL=f"amqp://{server}//",
        MLFLOW_TRACKING_URI=f"http://{server}",
        EMAIL_URL=f"smtp://{server}",
        MODELYARD_PUBLIC_URL=f"https://{server}",
    )

    assert finished.returncode == 2
    assert codes(finished) >= {
        "database-unreachable",
        "cache-failing",
        "broker-unreachable",
        "mlflow-unreachable",
        "mail-refused",
        "public-url-silent",
    }


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as another user")
def test_another_user_is_told_whose_home_it_is(tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    os.chown(home, 12345, 12345)
    os.chmod(home, 0o700)

    finished = check(home, "--json")

    assert "wrong-user" in codes(finished)
    assert "You are root, but" in finished.stdout


def test_a_home_that_is_a_file_is_no_reason_to_fail(tmp_path):
    (tmp_path / "home").write_text("")

    finished = check(tmp_path / "home", "--json")

    assert finished.returncode == 2
    assert "check-failed" not in codes(finished)
