"""Modelyard says in words why it does not start."""

import os
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command
from django.db.migrations.recorder import MigrationRecorder

from config.processes import before_start
from config.processes.before_start import (
    CannotStart,
    Port,
    check_ports,
    check_settings,
    hold_home,
)
from inference.installation.home import Home

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def home(tmp_path, settings):
    settings.HOME = Home(tmp_path / "home")
    return settings.HOME


@pytest.mark.parametrize("name", ["MODELYARD_PORT", "MODELYARD_GRPC_PORT"])
def test_a_port_in_use_is_named_with_the_setting_that_moves_it(home, settings, name):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        # Other programs of this machine may use the other ports.
        settings.MODELYARD_PORT = settings.MODELYARD_GRPC_PORT = 0
        settings.MODELYARD_OPERATOR_PORT = 0
        setattr(settings, name, port)

        with pytest.raises(CannotStart, match=rf"{port}.*{name}={port + 100}"):
            check_ports(before_start.ports())


def test_the_operators_port_is_looked_for_at_its_own_address(settings):
    settings.MODELYARD_HOST = "127.0.0.1"
    settings.MODELYARD_OPERATOR_HOST, settings.MODELYARD_GRPC_PORT = "127.0.0.2", 0

    assert [(port.host, port.setting) for port in before_start.ports()] == [
        ("127.0.0.1", "MODELYARD_PORT"),
        ("127.0.0.2", "MODELYARD_OPERATOR_PORT"),
    ]
    check_ports([Port("::1", free_port("::1"), "MODELYARD_PORT")])


def free_port(host):
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as found:
        found.bind((host, 0))
        return found.getsockname()[1]


@pytest.mark.parametrize("other", ["127.0.0.1", "0.0.0.0"])
def test_two_settings_with_one_port_are_refused(other):
    port = free_port("127.0.0.1")
    twice = [Port("127.0.0.1", port, "A"), Port(other, port, "MODELYARD_GRPC_PORT")]

    with pytest.raises(CannotStart, match=f"MODELYARD_GRPC_PORT={port + 100}"):
        check_ports(twice)


@pytest.mark.parametrize("number", [-1, 65_536])
def test_a_number_that_is_no_port_is_named(number):
    with pytest.raises(CannotStart, match=f"MODELYARD_GRPC_PORT is {number}"):
        check_ports([Port("127.0.0.1", number, "MODELYARD_GRPC_PORT")])


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("MODELYARD_MAX_STREAMS", "many", "must be a number"),
        ("MODELYARD_TRUSTED_PROXIES", "the-proxy", "MODELYARD_TRUSTED_PROXIES"),
        ("MODELYARD_ENGINE_MAX_QUEUE_ROWS", "0", "must be at least 1"),
        ("MODELYARD_GRPC_CERTIFICATE_FILE", "/nowhere.pem", "names no file"),
        ("MODELYARD_GRPC_CERTIFICATE_FILE", __file__, "needs both"),
    ],
)
def test_what_no_process_would_start_with_is_named(name, value, told):
    with pytest.raises(CannotStart, match=told):
        check_settings({name: value})


def test_files_that_are_no_certificates_are_named():
    files = ("MODELYARD_GRPC_CERTIFICATE_FILE", "MODELYARD_GRPC_KEY_FILE")

    with pytest.raises(CannotStart, match="must be PEM files that belong together"):
        check_settings(dict.fromkeys(files, __file__))


def test_the_settings_of_this_machine_are_checked(home, monkeypatch):
    monkeypatch.setenv("MODELYARD_BODY_TIMEOUT_S", "soon")

    with pytest.raises(CannotStart, match="MODELYARD_BODY_TIMEOUT_S"):
        before_start.check()


def test_a_setting_that_no_gateway_takes_is_told_before_any_process(home, monkeypatch):
    monkeypatch.setenv("MODELYARD_MAX_RELAYED_BYTES", "1000000")

    with pytest.raises(CannotStart, match="MODELYARD_MAX_RELAYED_BYTES is 1000000"):
        before_start.check()


def test_second_supervisor_of_one_home_is_refused(home):
    descriptor = hold_home(home)

    with pytest.raises(CannotStart, match=str(os.getpid())):
        hold_home(home)

    os.close(descriptor)
    os.close(hold_home(home))


def test_a_home_that_cannot_be_written_is_named():
    with pytest.raises(CannotStart, match="MODELYARD_HOME=/proc/nowhere"):
        hold_home(Home(Path("/proc/nowhere")))


def test_a_home_that_others_could_read_is_closed_to_them(home):
    home.root.mkdir(mode=0o755)

    home.prepare()

    assert stat.S_IMODE(home.root.stat().st_mode) == 0o700


def test_a_folder_that_all_users_share_is_no_home(home):
    home.root.mkdir()
    home.root.chmod(0o1777)

    with pytest.raises(CannotStart, match="all users share this folder"):
        hold_home(home)

    assert stat.S_IMODE(home.root.stat().st_mode) == 0o1777


@pytest.mark.django_db
def test_a_database_without_its_migrations_is_told_how_to_get_them(home, monkeypatch):
    home.prepare()
    monkeypatch.setattr(before_start, "ports", list)
    before_start.check_database()
    applied = MigrationRecorder.Migration.objects.filter(app="accounts")
    name = applied.order_by("name").last().name
    applied.filter(name=name).delete()

    with pytest.raises(CommandError, match=rf"lacks .*accounts\.{name}.*migrate"):
        call_command("serve")


@pytest.mark.django_db
def test_a_database_of_a_newer_version_is_refused(home):
    home.prepare()
    MigrationRecorder.Migration.objects.create(app="inference", name="9999_newer")

    with pytest.raises(CannotStart, match=r"newer version .*inference\.9999_newer"):
        before_start.check_database()


@pytest.mark.parametrize("arguments", [["check"], ["check", "--deploy"]])
def test_a_check_needs_neither_a_home_nor_tables(tmp_path, arguments):
    """A machine that builds an image has neither."""
    done = subprocess.run(
        [sys.executable, "manage.py", *arguments],
        cwd=ROOT,
        env={
            **os.environ,
            "MODELYARD_HOME": "/proc/nowhere",
            "DATABASE_URL": f"sqlite:///{tmp_path}/empty.sqlite3",
            "HTTPS": "true",
            "ALLOWED_HOSTS": "models.example.com",
            "MODELYARD_GATEWAYS": "auto",
        },
        capture_output=True,
        text=True,
        timeout=120,
    )

    assert (done.returncode, done.stderr) == (0, "")
    assert "no issues" in done.stdout
