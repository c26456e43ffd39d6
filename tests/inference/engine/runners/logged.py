"""Write models with MLflow, and describe them as versions to load."""

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import msgspec
import yaml

from inference.engine.signatures.mlflow_signature import from_mlflow
from inference.engine.wire.messages import VersionKey, VersionToLoad


def version(
    folder: Path, *, metadata: dict[str, Any] | None = None, trusted: bool = True
) -> VersionToLoad:
    """Describe the artifact in `folder` for an engine, as the controller does."""
    mlmodel = yaml.safe_load((folder / "MLmodel").read_text())
    stored = mlmodel["signature"]
    signature = {
        part: json.loads(stored[part])
        for part in stored
        if stored.get(part) is not None
    }
    return VersionToLoad(
        key=VersionKey(folder.name, 1),
        path=str(folder),
        flavors=tuple(mlmodel["flavors"]),
        signature=msgspec.to_builtins(from_mlflow(signature, metadata)),
        trusted=trusted,
    )


def save_pyfunc(folder: Path, model: Any, **options: Any) -> None:
    import mlflow.pyfunc

    with contextlib.redirect_stderr(io.StringIO()):
        mlflow.pyfunc.save_model(
            str(folder), python_model=model, pip_requirements=[], **options
        )


def save_torch(folder: Path, module: Any, **options: Any) -> None:
    import mlflow.pytorch

    with contextlib.redirect_stderr(io.StringIO()):
        mlflow.pytorch.save_model(
            module,
            str(folder),
            pip_requirements=[],
            serialization_format="pickle",
            **options,
        )
