"""`deploy/setup.sh` finds a Python that fits, or says how to get one."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# What the script needs until it has found a Python.
TOOLS = ("cat", "cksum", "dirname", "grep", "rm", "sh", "tr")


@pytest.fixture
def machine(tmp_path):
    """Return a folder that is the whole PATH, with the tools but without a Python."""
    (tmp_path / "bin").mkdir()
    for tool in TOOLS:
        (tmp_path / "bin" / tool).symlink_to(shutil.which(tool))
    (tmp_path / "deploy").mkdir()
    for name in ("deploy/setup.sh", "constraints.txt", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def install(machine, name, version, *, venv=True):
    """Add a Python of this version that says so when it should make a venv."""
    program = machine / "bin" / name
    program.write_text(
        f"""#!{sys.executable}
import sys
sys.version_info = {(*version, 0)!r}
if not {venv}:
    sys.modules["ensurepip"] = None
if sys.argv[1] == "-c":
    exec(sys.argv[2])
else:
    print("venv of {name}")
    sys.exit(1)
"""
    )
    program.chmod(0o755)


def set_up(machine, **environment):
    return subprocess.run(
        [machine / "deploy" / "setup.sh"],
        env={"PATH": str(machine / "bin"), **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("versions", "chosen"),
    [
        ([(3, 11), (3, 12), (3, 13)], "python3.13"),
        ([(3, 11), (3, 12)], "python3.12"),
        ([(3, 10), (3, 11), (3, 14)], "python3.11"),
    ],
)
def test_the_newest_python_that_fits_is_taken(machine, versions, chosen):
    for major, minor in versions:
        install(machine, f"python{major}.{minor}", (major, minor))
    install(machine, "python3", versions[0])

    assert f"venv of {chosen}\n" in set_up(machine).stdout


def test_one_that_can_make_no_venv_is_passed_over(machine):
    install(machine, "python3.13", (3, 13), venv=False)
    install(machine, "python3.12", (3, 12))

    assert "venv of python3.12\n" in set_up(machine).stdout


def test_people_may_name_a_python(machine):
    install(machine, "python3.13", (3, 13))
    install(machine, "mine", (3, 11))

    assert "venv of mine\n" in set_up(machine, PYTHON="mine").stdout


def test_without_one_it_says_how_to_get_one(machine):
    install(machine, "python3", (3, 10))

    ended = set_up(machine)

    assert ended.returncode == 1
    for system in ("Debian", "Ubuntu", "Fedora", "macOS", "PYTHON="):
        assert system in ended.stderr


def test_without_the_venv_module_it_names_the_package(machine):
    install(machine, "python3", (3, 12), venv=False)

    ended = set_up(machine)

    assert ended.returncode == 1
    assert "apt install python3.12-venv" in ended.stderr
