"""Test systemd's units with systemd itself, as far as it goes without running it."""

import re
import shutil
import subprocess

import pytest

from tests.deploy.chart import ROOT

UNITS = sorted((ROOT / "deploy/systemd").iterdir())
# Out of 100; 85 without any of the unit's walls.
MOST_EXPOSED = 25

needs_systemd = pytest.mark.skipif(
    not shutil.which("systemd-analyze"), reason="no systemd here"
)


@needs_systemd
def test_systemd_understands_every_line(tmp_path):
    for unit in UNITS:
        # Its commands exist on a server only.
        text = re.sub(r"^(Exec\w+)=.*", r"\1=/bin/true", unit.read_text(), flags=re.M)
        (tmp_path / unit.name).write_text(text)

    done = subprocess.run(
        ["systemd-analyze", "verify", *sorted(tmp_path.iterdir())],
        capture_output=True,
        text=True,
    )

    assert (done.returncode, done.stderr) == (0, "")


@needs_systemd
@pytest.mark.parametrize(
    "unit", [it for it in UNITS if it.suffix == ".service"], ids=lambda it: it.name
)
def test_a_service_is_little_exposed(unit):
    done = subprocess.run(
        [
            *("systemd-analyze", "security", "--offline=true"),
            *(f"--threshold={MOST_EXPOSED}", "--no-pager", str(unit)),
        ],
        capture_output=True,
        text=True,
    )

    assert done.returncode == 0, done.stdout


def test_the_unit_leaves_models_what_they_need():
    text = (ROOT / "deploy/systemd/modelyard.service").read_text()
    said = dict(re.findall(r"^(\w+)=(.*)$", text, re.MULTILINE))

    # GPUs are devices; compilers of models write code; engines divide the cgroup.
    assert not {"PrivateDevices", "DeviceAllow", "ProtectClock"} & set(said)
    assert not {"MemoryDenyWriteExecute", "ProtectControlGroups"} & set(said)
    assert said["Delegate"] == "memory"
    # Two descriptors for each of MODELYARD_MAX_CONNECTIONS, and room.
    assert int(said["LimitNOFILE"]) >= 2 * 10_000
