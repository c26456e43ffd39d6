"""Two versions with conflicting scikit-learn, with the real packages."""

import json
import os
import subprocess
import sys
from importlib.metadata import version as installed
from pathlib import Path

import msgspec
import pytest
import yaml

from inference.controller.callable_versions import (
    NotYetCallable,
    read_catalog,
    version_to_load,
)
from inference.environments import settling, turn
from inference.models import ModelEnvironment
from registry.models import ModelVersion
from tests.factories_registry import ModelVersionFactory, RegisteredModelFactory

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.index,
    pytest.mark.timeout(600),
]

FOLDER = Path(__file__).parent
SOURCE = FOLDER.parents[2]
OLD = "1.5.2"
REQUIREMENTS = [
    "cloudpickle",
    f"mlflow=={installed('mlflow')}",
    "numpy==1.26.4",
    "pandas==2.2.3",
    f"scikit-learn=={OLD}",
]


@pytest.fixture
def index(tmp_path):
    """Skip unless pip finds the packages where it is set up to look for them."""
    asked = subprocess.run(
        [
            *(sys.executable, "-m", "pip", "install", "--dry-run", "--no-deps"),
            *("--quiet", "--target", tmp_path, f"scikit-learn=={OLD}"),
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )
    if asked.returncode:
        pytest.skip(f"no package index answers: {asked.stderr.strip()[-200:]}")


def make(python: Path | str, folder: Path, requirements: list[str]) -> None:
    subprocess.run(
        [python, FOLDER / "make_artifact.py", folder, *requirements],
        check=True,
        capture_output=True,
        env={**os.environ, "MLFLOW_TRACKING_URI": "file:///nonexistent"},
    )


def described(version: ModelVersion, settings) -> str:
    """Return what an engine is told of the version, as a line of JSON."""
    (entry,) = read_catalog(names=[version.registered_model.name])
    version = entry.versions[version.version]
    wanted = version_to_load(entry, version, artifacts=settings.HOME.artifacts)
    return msgspec.json.encode(wanted).decode() + "\n"


def signature_of(artifact: Path) -> dict[str, list[dict[str, str]]]:
    stored = yaml.safe_load((artifact / "MLmodel").read_text())["signature"]
    return {part: json.loads(text) for part, text in stored.items() if text}


def serve(python: Path | str, wanted: str) -> "subprocess.Popen[str]":
    process = subprocess.Popen(
        [python, FOLDER / "serve_artifact.py"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
    )
    process.stdin.write(wanted)
    process.stdin.flush()
    return process


def ask(process: "subprocess.Popen[str]", widths: list[float]) -> list[int]:
    process.stdin.write(json.dumps(widths) + "\n")
    process.stdin.flush()
    return json.loads(process.stdout.readline())


def end(process: "subprocess.Popen[str]") -> str:
    _, errors = process.communicate(timeout=60)
    return errors


def test_two_versions_with_conflicting_packages_serve_side_by_side(
    index, settings, monkeypatch
):
    settings.MODELYARD_ENVIRONMENTS = "build"
    # Little of what is installed is imported here.
    monkeypatch.setenv("PIP_NO_COMPILE", "1")
    model = RegisteredModelFactory(name="churn", trusted=True)
    cache = settings.HOME.artifacts
    make(sys.executable, cache / ("b" * 64), [])
    signature = signature_of(cache / ("b" * 64))
    common = {
        "registered_model": model,
        "flavors": ["python_function", "sklearn"],
        "signature": signature,
        "metadata": {},
        "published": True,
    }
    new = ModelVersionFactory(**common, artifact_digest="b" * 64)
    (cache / ("a" * 64)).mkdir()
    old = ModelVersionFactory(
        **common, artifact_digest="a" * 64, requirements=REQUIREMENTS
    )

    # The old one waits for an environment, which is then built.
    settling.settle()
    with pytest.raises(NotYetCallable, match="environment is being built"):
        described(old, settings)
    assert turn.take_turn() == 1
    row = ModelEnvironment.objects.get()
    assert row.state == "ready", row.error + row.log[-2000:]
    assert row.size_bytes < 1_000_000_000
    assert "Successfully installed" in row.log
    (cache / ("a" * 64)).rmdir()
    folder = turn.environment_folders()[row.digest]
    python = Path(folder, "bin", "python")
    make(python, cache / ("a" * 64), REQUIREMENTS)

    # Both are loaded at the same time, and each answers with its own packages.
    old.refresh_from_db()
    assert old.environment == row.digest
    assert old.environment_fit["verdict"] == "fits"
    processes = [
        serve(python, described(old, settings)),
        serve(sys.executable, described(new, settings)),
    ]
    # What this is for: the installed scikit-learn cannot read the old one's model.
    wrong = serve(sys.executable, described(old, settings))
    try:
        started = [process.stdout.readline().split() for process in processes]
        assert started == [[OLD, "False"], [installed("scikit-learn"), "False"]]
        for process in processes:
            assert ask(process, [1.0, 39.0]) == [0, 1]
        assert ask(processes[0], [39.0]) == [1]
    finally:
        for process in processes:
            end(process)
    assert wrong.stdout.readline() == ""
    assert "was not loaded" in end(wrong)
