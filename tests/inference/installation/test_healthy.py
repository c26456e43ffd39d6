import errno
import os
import socket
import subprocess
import sys
import threading
import time

import pytest

from inference.installation import whole_files
from inference.installation.healthy import problem
from inference.installation.home import Home
from inference.metrics.counts import Counts
from inference.metrics.own_reports import ReportFile


@pytest.fixture
def home(tmp_path):
    home = Home(tmp_path / "home")
    home.prepare()
    return home


def answer_once(listener, status):
    def answer():
        connection, _ = listener.accept()
        connection.recv(4096)
        connection.sendall(f"HTTP/1.1 {status} x\r\ncontent-length: 0\r\n\r\n".encode())
        connection.close()

    threading.Thread(target=answer, daemon=True).start()


def test_a_site_is_well_while_it_answers_on_its_socket(home):
    assert "does not answer" in problem("site", home, {})
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(home.site_socket))
        listener.listen()
        answer_once(listener, 200)
        assert problem("site", home, {}) == ""
        answer_once(listener, 503)
        assert problem("site", home, {}) == "It answers with 503."


def test_a_gateway_is_asked_on_its_own_socket_and_not_a_sibling(home):
    environment = {"MODELYARD_PROCESS": "gateway-2"}
    dead = home.gateway_socket("gateway-2", "killed")
    with socket.socket(socket.AF_UNIX) as former, socket.socket(socket.AF_UNIX) as own:
        former.bind(str(dead))
        own.bind(str(home.gateway_socket("gateway", "first")))
        own.listen()
        answer_once(own, 200)
        assert "does not answer" in problem("gateway", home, environment)
        assert problem("gateway", home, {}) == ""
        dead.unlink()
        assert "gateway-2.*.sock" in problem("gateway", home, environment)


@pytest.mark.parametrize("name", ["host", "worker", "beat"])
def test_a_process_without_a_port_is_well_while_it_gives_signs_of_life(home, name):
    assert "no sign of life" in problem(name, home, {})
    report = ReportFile(home.own_reports, name)
    report.write(Counts())
    assert problem(name, home, {}) == ""
    old = time.time() - 100
    os.utime(home.sign_of_life(name), (old, old))
    assert problem(name, home, {}) == "Its last sign of life is 100 s old."

    report.write(Counts())

    assert problem(name, home, {}) == ""


HOLD_A_REPORT = """
import sys
from pathlib import Path
from inference.metrics.counts import Counts
from inference.metrics.own_reports import ReportFile
ReportFile(Path(sys.argv[1]), "worker").write(Counts())
print("ready", flush=True)
input()
"""


def test_each_of_several_workers_is_judged_by_its_own_sign_of_life(home, tmp_path):
    """Each container sees only its own processes."""
    containers = [tmp_path / "first", tmp_path / "second"]
    line = [sys.executable, "-c", HOLD_A_REPORT, str(home.own_reports)]
    with subprocess.Popen(line, stdin=-1, stdout=-1) as other:
        other.stdout.readline()
        ReportFile(home.own_reports, "worker").write(Counts())
        for container, number in zip(containers, (other.pid, os.getpid()), strict=True):
            container.mkdir()
            (container / "1").symlink_to(f"/proc/{number}")
        old = time.time() - 100
        os.utime(home.sign_of_life("worker"), (old, old))

        found = [problem("worker", home, {}, container) for container in containers]

        other.communicate(b"\n")
    assert found == ["Its last sign of life is 100 s old.", ""]


def test_a_file_that_is_closed_meanwhile_hides_no_other(home, tmp_path):
    """A process closes one file as another one's sign is looked for."""
    report = ReportFile(home.own_reports, "worker-2")
    report.write(Counts())
    opened = tmp_path / "processes/1/fd"
    opened.mkdir(parents=True)
    # As if it was closed: no link can be read there, whichever comes first.
    for number in range(8):
        (opened / str(number)).touch()
    (opened / "8").symlink_to(home.sign_of_life("worker-2"))

    assert problem("worker", home, {}, tmp_path / "processes") == ""


def test_a_full_disk_makes_no_process_unwell(home, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    report = ReportFile(home.own_reports, "worker")
    os.utime(home.sign_of_life("worker"), (0, 0))
    monkeypatch.setattr(whole_files, "write", full)

    with pytest.raises(OSError, match="No space"):
        report.write(Counts())

    assert problem("worker", home, {}) == ""


def test_a_controller_is_well_while_its_ledger_is_young(home):
    assert "no sign of life" in problem("controller", home, {})
    home.ledger_report.touch()
    assert problem("controller", home, {}) == ""
    old = time.time() - 100
    os.utime(home.ledger_report, (old, old))
    assert "100 s old" in problem("controller", home, {})


def test_an_unknown_name_is_refused(home):
    assert problem("mlflow", home, {}).startswith("There is no check of mlflow;")
