import os
import subprocess
import sys

import pytest
from django.core.management import CommandError, call_command

from config.processes.before_start import (
    CannotStart,
    hold_home,
    join_home,
    share_secret_key,
)
from inference.installation.home import Home


@pytest.fixture
def home(tmp_path):
    return Home(tmp_path / "home")


def close(descriptors):
    for descriptor in descriptors:
        os.close(descriptor)


def test_a_second_beat_is_refused_until_the_first_one_has_ended(home):
    first = join_home(home, "beat")

    with pytest.raises(CannotStart, match=r"Another beat runs on .*only one"):
        join_home(home, "beat")

    close(first)
    close(join_home(home, "beat"))


def test_workers_and_controllers_may_be_many(home):
    for name in ("worker", "controller"):
        close([*join_home(home, name), *join_home(home, name)])


def test_serve_and_processes_of_containers_keep_each_other_out(home):
    whole = hold_home(home)
    with pytest.raises(CannotStart, match="`modelyard serve` runs on"):
        join_home(home, "site")
    os.close(whole)

    held = join_home(home, "site")
    with pytest.raises(CannotStart, match="already running"):
        hold_home(home)
    close(held)


def test_locks_outlive_the_command_that_becomes_the_process(home):
    held = join_home(home, "beat")
    other = subprocess.Popen([sys.executable, "-c", "input()"], stdin=-1, pass_fds=held)
    close(held)

    with pytest.raises(CannotStart):
        join_home(home, "beat")

    other.communicate(b"\n")
    close(join_home(home, "beat"))


def test_one_home_has_one_secret_key_which_may_change_while_nothing_runs(home):
    site, worker = share_secret_key(home, "a"), share_secret_key(home, "a")

    with pytest.raises(CannotStart, match="SECRET_KEY is not the one"):
        share_secret_key(home, "b")

    close([site, worker])
    os.close(share_secret_key(home, "b"))


def test_a_process_that_does_not_exist_is_refused_with_the_names(db):
    with pytest.raises(CommandError, match="There is no process sit;") as error:
        call_command("run", "sit")

    assert error.value.returncode == 78


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become another user")
def test_a_home_of_another_user_is_refused_in_words(home, settings):
    home.prepare()
    settings.HOME = home
    os.seteuid(65534)
    try:
        with pytest.raises(CommandError, match=r"cannot be written.*user 65534"):
            call_command("run", "site")
    finally:
        os.seteuid(0)


def test_a_process_gets_its_command_and_only_its_environment(monkeypatch, home):
    became = {}

    def become(file, command, environment):
        became.update(command=command, environment=environment)

    monkeypatch.setattr(os, "execvpe", become)
    monkeypatch.setattr("config.processes.before_start.check_alone", lambda *_, **__: 0)
    monkeypatch.setattr(os, "nice", lambda _: 0)
    monkeypatch.setenv("SECRET_KEY_FILE", "/run/secrets/key")

    call_command("run", "host")

    assert "inference.host" in became["command"]
    assert became["environment"]["MODELYARD_PROCESS"] == "host"
    assert "SECRET_KEY_FILE" not in became["environment"]
