"""The secret key of a home is made once, and its loss is told."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command

from config.checks.kinds import security
from config.processes import before_start, secret_key
from config.processes.before_start import CannotStart
from inference.installation.home import Home

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def home(tmp_path, settings):
    settings.HOME = Home(tmp_path / "home")
    settings.HOME.prepare()
    return settings.HOME


@pytest.fixture
def lost(home, settings):
    """Return a home that has served, and whose key is gone."""
    secret_key.of_home(home)
    home.identity()
    home.secret_key.unlink()
    settings.SECRET_KEY = ""
    return home


def test_a_new_home_gets_a_key_which_stays(home):
    key = secret_key.of_home(home)

    assert len(key) == 50
    assert secret_key.of_home(home) == key
    home.identity()
    assert secret_key.of_home(home) == key


@pytest.mark.parametrize("left", [None, ""])
def test_a_home_that_has_served_gets_no_other_key(lost, left):
    if left is not None:
        lost.secret_key.write_text(left)

    assert secret_key.of_home(lost) == ""
    assert secret_key.is_lost(lost)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become another user")
def test_a_key_that_others_own_is_not_replaced(home, settings):
    secret_key.of_home(home)
    home.root.chmod(0o777)
    settings.SECRET_KEY = ""
    for above in home.root.parents:
        if above.is_relative_to("/tmp/pytest-of-root"):
            above.chmod(0o755)
    os.seteuid(65534)
    try:
        assert secret_key.of_home(home) == ""
        with pytest.raises(CannotStart, match=r"secret_key cannot be read"):
            before_start.check_secret_key()
    finally:
        os.seteuid(0)


def test_without_its_key_nothing_starts(lost, monkeypatch):
    monkeypatch.setattr(before_start, "ports", list)
    told = r"secret key is lost: .*secret_key is not there.*new_secret_key"

    with pytest.raises(CannotStart, match=told):
        before_start.check()


def test_a_process_of_a_container_does_not_start_either(lost):
    with pytest.raises(CannotStart, match="secret key is lost"):
        before_start.check_alone("worker", uses_database=True)


def test_what_signs_nothing_starts_without_a_key(lost):
    before_start.check_alone("host", uses_database=False)


def test_the_check_names_the_loss(lost):
    assert "secret-key-lost" in [finding.code for finding in security.look()]


def test_an_operator_makes_another_key_knowingly(lost, capsys):
    call_command("new_secret_key")

    assert len(secret_key.of_home(lost)) == 50
    assert lost.secret_key.stat().st_mode & 0o777 == 0o600
    assert "Everybody must sign in again" in capsys.readouterr().out


def test_a_key_that_is_there_is_only_replaced_if_asked(home):
    key = secret_key.of_home(home)

    with pytest.raises(CommandError, match=r"everybody is signed out.*--replace"):
        call_command("new_secret_key")
    assert secret_key.of_home(home) == key

    call_command("new_secret_key", "--replace")
    assert secret_key.of_home(home) != key


@pytest.mark.parametrize("name", ["SECRET_KEY", "SECRET_KEY_FILE"])
@pytest.mark.parametrize("arguments", [(), ("--replace",)])
def test_a_key_of_the_environment_is_changed_there(home, monkeypatch, name, arguments):
    key = secret_key.of_home(home)
    monkeypatch.setenv(name, "given")

    with pytest.raises(CommandError, match=f"^{name} is set.*Change it there"):
        call_command("new_secret_key", *arguments)

    assert secret_key.of_home(home) == key


def test_no_key_is_replaced_under_running_processes(home):
    key = secret_key.of_home(home)
    held = before_start.join_home(home, "worker")

    with pytest.raises(CommandError, match="already running"):
        call_command("new_secret_key", "--replace")

    assert secret_key.of_home(home) == key
    for descriptor in held:
        os.close(descriptor)


def modelyard(home, *arguments):
    return subprocess.run(
        [sys.executable, "-m", "config", *arguments],
        cwd=ROOT,
        env={**os.environ, "MODELYARD_HOME": str(home.root)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.processes
def test_commands_do_not_make_a_key_by_the_way(lost):
    done = modelyard(lost, "check")

    assert "The secret key is lost" in done.stdout
    assert not lost.secret_key.exists()
    assert modelyard(lost, "serve").stderr.startswith(
        "CommandError: The secret key is lost"
    )
    assert modelyard(lost, "new_secret_key").returncode == 0
    assert "The secret key is lost" not in modelyard(lost, "check").stdout
