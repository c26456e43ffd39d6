"""Register tests/end_to_end/echo_model.py, as a data scientist would."""

import os
from pathlib import Path

import mlflow
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, Schema

# The same place as with `make run`; MLflow's default is the current folder.
mlflow.create_experiment("echo", os.environ["MODELYARD_ARTIFACT_ROOT"])
mlflow.set_experiment("echo")
logged = mlflow.pyfunc.log_model(
    name="model",
    python_model=str(Path(__file__).with_name("echo_model.py")),
    registered_model_name="echo",
    signature=ModelSignature(
        inputs=Schema([ColSpec("string", "text")]),
        outputs=Schema([ColSpec("string", "text")]),
    ),
    pip_requirements=["mlflow"],
)
mlflow.MlflowClient().set_registered_model_alias(
    "echo", "champion", logged.registered_model_version
)
