"""Decide which libraries a new engine process needs, and in which order they come.

Torch programs need torch alone. Authors' Python also needs MLflow's reader of models,
and perhaps anything else that is installed.
"""

import contextlib
import importlib
import re
from pathlib import Path

from inference.engine.runners import torch_export
from inference.engine.wire.messages import VersionToLoad
from inference.engine.wire.orders import EngineOrder

# Each step needs those before it. What no process waits for comes last.
STEPS = (
    ("numpy", "torch"),
    ("pandas", "mlflow.pyfunc"),
    ("scipy.special", "sklearn.ensemble", "sklearn.linear_model", "sklearn.pipeline"),
    torch_export.LIBRARIES,
)
_TORCH, _MODELS, _ALL = 1, 2, 3
# Packages that the first steps bring.
_EARLY = frozenset({"mlflow", "numpy", "pandas", "torch"})
_REQUIREMENTS = "requirements.txt"
_NAME = re.compile(r"\s*([\w.-]+)", re.ASCII)
_MOST_BYTES = 64 * 1024


def import_step(names: tuple[str, ...]) -> None:
    for name in names:
        # A model that needs what is not there, or broken, fails to load and says so.
        with contextlib.suppress(Exception):
            importlib.import_module(name)


def steps_for(order: EngineOrder) -> int:
    """Return how many of the steps come before this process may be forked.

    What a process imports itself is shared with no other.
    """
    if not order.walled:
        # It imports how programs are read by itself, beside the further steps.
        return _TORCH
    if order.versions and all(map(_needs_little, order.versions)):
        return _MODELS
    return _ALL


def _needs_little(version: VersionToLoad) -> bool:
    """Return whether the version was logged with nothing but what comes early."""
    try:
        with Path(version.path, _REQUIREMENTS).open("rb") as file:
            text = file.read(_MOST_BYTES).decode()
    except (OSError, ValueError):
        return False
    lines = [line for line in text.splitlines() if line.strip()]
    found = [_NAME.match(line) for line in lines]
    return bool(lines) and all(name and name[1].lower() in _EARLY for name in found)
