"""Find MLflow and the versions that are already registered, for all example scripts."""

import argparse
import atexit
import json
import logging
import os
import shutil
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path

# MLflow reads these when it is imported, so they come first.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_DISABLE_AGENT_HINT", "true")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")

import mlflow
import numpy as np
import torch
from mlflow.exceptions import MlflowException
from numpy.typing import NDArray


@dataclass(frozen=True)
class Registration:
    """One registered model, and the number of its versions when the script began."""

    name: str
    existing_versions: int

    def say(self, text: str) -> None:
        print(f"{self.name}: {text}", flush=True)

    def set_alias(self, alias: str, version: int) -> None:
        """Point an alias at a version, unless somebody has set the alias already."""
        client = mlflow.MlflowClient()
        if alias not in client.get_registered_model(self.name).aliases:
            client.set_registered_model_alias(self.name, alias, str(version))

    def describe(self, text: str) -> None:
        mlflow.MlflowClient().update_registered_model(self.name, text)


def begin(name: str, *, versions: int = 1) -> Registration:
    """Read the arguments, choose the tracking server, and find existing versions.

    With `--if-missing` the script exits with 0 if all `versions` are registered; if
    only some are, it goes on after the last one.
    """
    parser = argparse.ArgumentParser(description=f"Train and register {name}.")
    parser.add_argument("--tracking-uri", default=os.environ.get("MLFLOW_TRACKING_URI"))
    parser.add_argument(
        "--if-missing", action="store_true", help="do nothing where it is registered"
    )
    arguments = parser.parse_args()
    _quieten()
    # The models are too small for several threads to pay off.
    torch.set_num_threads(1)
    if arguments.tracking_uri:
        mlflow.set_tracking_uri(arguments.tracking_uri)
    existing = _count_versions(name) if arguments.if_missing else 0
    registration = Registration(name, existing)
    if existing >= versions:
        registration.say(f"already registered ({existing} versions)")
        raise SystemExit(0)
    _choose_experiment(name)
    return registration


def save_background(rows: NDArray[np.float32]) -> str:
    """Write the background sample with which explanations compare."""
    path = new_folder() / "background.npy"
    np.save(path, rows, allow_pickle=False)
    return str(path)


def save_outputs(outputs: NDArray[np.float32] | list[str]) -> str:
    """Write the model's outputs for its input example.

    Before an engine serves the version, it compares them with its own outputs, and so
    finds differences between training and serving.
    """
    path = new_folder() / "output_example.json"
    path.write_text(json.dumps(np.asarray(outputs).tolist()))
    return str(path)


def new_folder() -> Path:
    """Make a temporary folder that is removed when the script ends."""
    path = Path(tempfile.mkdtemp(prefix="modelyard-example-"))
    atexit.register(shutil.rmtree, path, ignore_errors=True)
    return path


def _count_versions(name: str) -> int:
    try:
        return len(mlflow.MlflowClient().search_model_versions(f"name='{name}'"))
    except MlflowException:
        return 0


def _choose_experiment(name: str) -> None:
    if mlflow.get_experiment_by_name(name) is None:
        # With a store in a file, MLflow would put artifacts where this was started.
        kind, _, file = mlflow.get_tracking_uri().partition(":///")
        root = Path(file).resolve().parent / "artifacts" / name
        location = root.as_uri() if kind == "sqlite" else None
        mlflow.create_experiment(name, artifact_location=location)
    mlflow.set_experiment(name)


def _quieten() -> None:
    """Hide MLflow's advice about things that the scripts do on purpose."""
    warnings.filterwarnings("ignore", module=r"mlflow|torch|pydantic")
    for logger in ("mlflow", "alembic", "torch"):
        logging.getLogger(logger).setLevel(logging.ERROR)
