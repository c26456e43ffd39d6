"""Run the demo scripts as a data scientist does, and test what they registered."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from inference.engine.signatures import example
from inference.engine.signatures.mlflow_signature import from_mlflow
from inference.engine.signatures.signature import Layout, Signature, Task
from registry.rules import metadata as registry_metadata

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.processes


def database(mlflow):
    return f"sqlite:///{mlflow / 'mlflow.db'}"


def run(*arguments, mlflow):
    environment = os.environ | {"MLFLOW_TRACKING_URI": database(mlflow)}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )


@pytest.fixture(scope="module")
def mlflow(modelyard):
    """The MLflow store with the models that the first run trained."""
    return modelyard.installation.home / "mlflow"


@pytest.fixture(scope="module")
def output(modelyard):
    return [line.strip() for line in modelyard.first_run.card]


@pytest.fixture(scope="module")
def versions(mlflow):
    """Return the registered models as name → artifact folders, newest last."""
    found: dict[str, list[Path]] = {}
    for path in sorted(
        mlflow.glob("artifacts/*/models/*/artifacts/MLmodel"),
        key=lambda path: path.stat().st_mtime,
    ):
        found.setdefault(path.parts[-5], []).append(path.parent)
    return found


def read(folder: Path) -> tuple[Signature, list[str]]:
    description = yaml.safe_load((folder / "MLmodel").read_text())
    metadata = description["metadata"]["modelyard"]
    signature = {
        side: json.loads(description["signature"][side])
        for side in ("inputs", "outputs", "params")
        if description["signature"][side]
    }
    problems = registry_metadata.check(metadata, signature)
    return from_mlflow(signature, metadata), problems


def test_every_model_is_registered_with_its_versions(versions):
    assert {name: len(folders) for name, folders in versions.items()} == {
        "breast-cancer": 3,
        "diabetes": 1,
        "digits": 1,
        "language": 1,
        "sentences": 1,
        "writer": 1,
    }


def test_models_are_better_than_guessing_on_unseen_data(output):
    def share(name):
        line = next(line for line in output if line.startswith(name))
        return float(line.split("%")[0].split()[-1]) / 100

    accuracies = {
        line.split(":")[0]: float(
            line.split("test accuracy ")[1].split()[0].rstrip(",")
        )
        for line in output
        if "test accuracy" in line
    }

    assert accuracies["breast-cancer"] > 0.93
    assert accuracies["digits"] > 0.95
    assert accuracies["language"] > 0.93
    # One of 153 messages, and one of some 80 letters.
    assert share("sentences") > 0.6
    assert share("writer") > 0.5
    [diabetes] = (line for line in output if line.startswith("diabetes"))
    assert float(diabetes.split("R² ")[1].split(",")[0]) > 0.25


def test_metadata_of_every_version_is_valid(versions):
    for folders in versions.values():
        for folder in folders:
            _, problems = read(folder)

            assert problems == []


def test_layouts_and_tasks_are_those_of_the_demo(versions):
    facts = {name: read(folders[-1])[0] for name, folders in versions.items()}

    assert facts["breast-cancer"].layout is Layout.MATRIX
    assert len(facts["breast-cancer"].columns) == 30
    assert facts["breast-cancer"].labels == ("malignant", "benign")
    assert facts["diabetes"].task is Task.REGRESSION
    assert facts["digits"].layout is Layout.TENSOR
    assert facts["digits"].shape == (8, 8)
    assert facts["language"].columns[0].max_length == 10_000
    assert "fi" in facts["language"].labels
    assert facts["sentences"].task is Task.EMBEDDING
    assert [param.name for param in facts["writer"].params] == [
        "temperature",
        "seed",
        "max_letters",
    ]


def test_the_demo_promises_its_callers_what_it_always_did(modelyard):
    """If it is to promise more: `modelyard schema_snapshot` writes the file anew."""
    stored = Path(__file__).with_name("demo_contract.json")

    checked = modelyard.installation.manage("schema_snapshot", "--check", str(stored))

    assert checked.returncode == 0, checked.stdout + checked.stderr
    # Nothing is without a check because the file does not know it.
    assert checked.stdout == "Every route promises the same.\n"


def test_every_version_has_an_example_of_two_rows_with_outputs(versions):
    for folders in versions.values():
        for folder in folders:
            signature, _ = read(folder)

            inputs, outputs = (
                example.read(folder, signature),
                example.read_outputs(folder),
            )

            assert [len(tensor.data) for tensor in inputs] == [2]
            assert len(outputs[""]) == 2


def test_tabular_versions_carry_a_background_of_real_rows(versions):
    for folder in versions["breast-cancer"] + versions["diabetes"]:
        signature, _ = read(folder)

        background = np.load(folder / signature.background)

        assert background.shape == (100, len(signature.columns))
        for column, values in zip(signature.columns, background.T, strict=True):
            assert column.minimum is None or values.min() >= column.minimum
            assert column.maximum is None or values.max() <= column.maximum


@pytest.mark.filterwarnings("ignore")
def test_second_run_completes_one_model_and_leaves_the_others(mlflow, tmp_path):
    from mlflow import MlflowClient

    # In a copy with its own artifacts, so the served ones do not change.
    shutil.copy(mlflow / "mlflow.db", tmp_path)
    client = MlflowClient(database(tmp_path))
    experiment = client.get_experiment_by_name("breast-cancer")
    client.rename_experiment(experiment.experiment_id, "with the first run's artifacts")
    client.delete_registered_model_alias("breast-cancer", "challenger")
    client.delete_model_version("breast-cancer", "3")

    again = run("examples", "--if-missing", mlflow=tmp_path).stdout

    assert again.count("already registered") == 5
    assert again.count("version ") == 1
    assert "MLP 64-64, dropout" in again
