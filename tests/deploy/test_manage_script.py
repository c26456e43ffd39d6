"""`deploy/manage.sh` runs an operator's command as the service would."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SAY = """#!/bin/sh
echo "$(id -un) $PWD $KIND $*"
"""

OF_ONE_HOME = ("nobody", "daemon")

needs_root = pytest.mark.skipif(os.getuid() != 0, reason="needs root")


@pytest.fixture
def machine(tmp_path):
    """Return a folder that stands for the machine's root."""
    tmp_path.chmod(0o755)
    for above in tmp_path.parents:
        if above.is_relative_to("/tmp") and above != Path("/tmp"):
            above.chmod(0o755)
    for name in ("etc", "home", "opt/deploy", "opt/.venv/bin", "bin", "work"):
        (tmp_path / name).mkdir(parents=True)
    script = (ROOT / "deploy/manage.sh").read_text()
    assert "=/etc/modelyard/" in script
    installed = tmp_path / "opt/deploy/manage.sh"
    installed.write_text(script.replace("=/etc/modelyard/", f"={tmp_path}/etc/"))
    program = tmp_path / "opt/.venv/bin/modelyard"
    program.write_text(SAY)
    for path in (installed, program):
        path.chmod(0o755)
    (tmp_path / "bin/modelyard").symlink_to(installed)
    settings = tmp_path / "etc/modelyard.env"
    settings.write_text(f"MODELYARD_HOME={tmp_path}/home\nKIND=production\n")
    return tmp_path


def run(machine, *arguments, user=None, **environment):
    return subprocess.run(
        [machine / "bin/modelyard", *arguments],
        cwd=machine / "work",
        user=user,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_settings_are_read_and_relative_paths_stay_those_of_the_caller(machine):
    done = run(machine, "restore", "today.backup")

    assert done.stdout.endswith(f"{machine}/work production restore today.backup\n")


@needs_root
def test_root_becomes_the_owner_of_the_home(machine):
    shutil.chown(machine / "home", "nobody")

    done = run(machine, "migrate")

    assert done.stdout == f"nobody {machine}/work production migrate\n"


@needs_root
def test_a_home_that_root_took_is_still_of_the_service(machine):
    (machine / "home/home_id").touch()
    shutil.chown(machine / "home/home_id", "nobody")

    assert run(machine, "check").stdout.startswith("nobody ")


@needs_root
def test_a_home_that_root_took_whole_is_that_of_the_user_who_has_it(machine):
    """As `adduser --home` notes it; root alone owns the files."""
    (machine / "home/home_id").touch()
    known = f"root:x:0:0::/root:/bin/sh\nnobody:x:9:9::{machine}/home:/bin/sh"
    getent = machine / "bin/getent"
    getent.write_text(f"#!/bin/sh\necho '{known}'\n")
    getent.chmod(0o755)

    done = run(machine, "check", PATH=f"{machine}/bin:{os.environ['PATH']}")

    assert done.stdout.startswith("nobody ")


@needs_root
def test_of_several_users_with_one_home_the_first_is_taken(machine):
    (machine / "home/home_id").touch()
    known = "\n".join(f"{name}:x:9:9::{machine}/home:/bin/sh" for name in OF_ONE_HOME)
    getent = machine / "bin/getent"
    getent.write_text(f"#!/bin/sh\necho '{known}'\n")
    getent.chmod(0o755)

    done = run(machine, "check", PATH=f"{machine}/bin:{os.environ['PATH']}")

    assert done.stdout.startswith("nobody "), done.stderr


@needs_root
def test_root_stays_root_without_a_home(machine):
    (machine / "home").rmdir()

    assert run(machine, "check").stdout.startswith("root ")


@needs_root
def test_who_may_not_read_the_settings_is_told_how_to_run_it(machine):
    (machine / "etc/modelyard.env").chmod(0o600)

    done = run(machine, "check", "--json", user="nobody")

    assert done.returncode == 77
    assert done.stderr.endswith("cannot be read. Run: sudo modelyard check --json\n")
