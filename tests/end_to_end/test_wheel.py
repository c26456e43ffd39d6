"""A wheel, installed into an empty environment, serves from an empty folder."""

import re
import subprocess
import sys
import sysconfig
import zipfile
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests.end_to_end.conftest import (
    PATIENCE_S,
    ROOT,
    Installation,
    free_ports,
)
from tests.waiting import wait_until

# The wheel is built and installed once.
pytestmark = [pytest.mark.processes, pytest.mark.xdist_group("wheel")]


@dataclass
class Installed(Installation):
    """A wheel in an environment of its own, used from an empty folder."""

    bin: Path
    wheel: Path

    @property
    def environment(self) -> dict[str, str]:
        variables = super().environment
        del variables["MODELYARD_HOME"]
        return variables

    @property
    def folder(self) -> Path:
        return self.home.parent

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        program, *arguments = command
        return subprocess.run(
            [self.bin / program, *arguments],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    subprocess.run(
        [*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", folder, ROOT],
        check=True,
    )
    [wheel] = folder.glob("*.whl")
    venv = folder / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    python = venv / "bin" / "python"
    subprocess.run(
        [*pip, "--python", python, "install", "--no-deps", "--no-index", wheel],
        check=True,
    )
    # The packages that it needs are those of the tests. Python reads no .pth file in a
    # folder that a .pth file names, so it does not see the checkout that they serve.
    [packages] = venv.glob("lib/python*/site-packages")
    (packages / "zz_packages.pth").write_text(sysconfig.get_path("purelib"))
    (folder / "empty").mkdir()
    return Installed(
        folder / "empty" / "var", free_ports(), bin=venv / "bin", wheel=wheel
    )


def test_it_holds_every_file_that_runs(installed):
    tracked = subprocess.run(
        [
            *("git", "ls-files", "accounts", "examples", "explain", "inference"),
            *("platform", "registry", "templates"),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()

    held = set(zipfile.ZipFile(installed.wheel).namelist())

    assert {f"modelyard/{path}" for path in tracked} <= held


def test_it_puts_one_name_into_the_packages(installed):
    # Engines of other environments have its folder on their path: what else lay there
    # would hide their own packages.
    held = zipfile.ZipFile(installed.wheel).namelist()

    tops = {name.split("/")[0] for name in held if ".dist-info/" not in name}

    assert tops == {"modelyard", "modelyard.pth"}


def test_it_serves_from_an_empty_folder(installed):
    migrated = installed.run("modelyard", "migrate")
    assert migrated.returncode == 0, migrated.stderr
    assert (installed.folder / "var" / "db.sqlite3").exists()

    with subprocess.Popen(
        [installed.bin / "modelyard", "serve"],
        cwd=installed.folder,
        env=installed.environment,
    ) as serving:
        try:
            with httpx.Client(
                base_url=f"http://127.0.0.1:{installed.port}", timeout=60
            ) as client:
                page = wait_until(
                    lambda: _page(client, "/admin/login/"), timeout_s=PATIENCE_S
                )
                styles = re.findall(r'href="(/static/[^"]+\.css)', page)
                answers = {path: client.get(path).status_code for path in styles}
        finally:
            serving.terminate()

    assert "/static/modelyard/admin.css" in styles
    assert set(answers.values()) == {200}
    assert serving.returncode == 0


def _page(client, path):
    try:
        answer = client.get(path)
    except httpx.TransportError:
        return None
    return answer.text if answer.status_code == 200 else None


@pytest.mark.parametrize("command", [["modelyard"], ["python", "-m", "config"]])
def test_its_commands_have_one_name(installed, command):
    unknown = installed.run(*command, "nosuch")

    assert unknown.returncode == 1
    assert "'modelyard help'" in unknown.stderr


def test_the_demo_is_a_command(installed):
    told = installed.run("modelyard", "demo", "--help")

    assert told.returncode == 0
    assert "Set up the demo" in told.stdout
