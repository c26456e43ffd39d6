"""Say what is installed into an environment: what a version asks for, and our needs."""

import hashlib
import json
from collections.abc import Iterable, Sequence

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

# What an engine process imports for a model of `mlflow.pyfunc`. torch, shap and the
# whole of MLflow are there only if the model asks for them. Lower bounds only, so that
# they agree with any model.
ENGINE_NEEDS = ("msgspec>=0.19", "numpy", "pandas", "psutil", "structlog", "uvloop")
# The oldest that our runner works with.
_OLDEST_MLFLOW = "2.13"
# Engine processes run our own code.
OLDEST_PYTHON = (3, 11)


def to_install(requirements: Iterable[str]) -> list[str]:
    """Return lines for pip.

    MLflow is replaced by its small form: it holds the same modules, and MLflow names
    what else a model imports.
    """
    lines: list[str] = []
    names: set[str] = set()
    old_mlflow = False
    for line in requirements:
        try:
            requirement = Requirement(line)
        except InvalidRequirement:
            continue
        name = canonicalize_name(requirement.name)
        if name == "mlflow" and not requirement.extras:
            names.add("mlflow-skinny")
            pinned = _pinned(requirement)
            if pinned is None or pinned < Version(_OLDEST_MLFLOW):
                lines.append(f"mlflow-skinny>={_OLDEST_MLFLOW}")
            else:
                lines.append(f"mlflow-skinny=={pinned}")
                old_mlflow |= pinned.major < 3
            continue
        names.add(name)
        lines.append(line)
    if not names & {"mlflow", "mlflow-skinny"}:
        lines.append(f"mlflow-skinny>={_OLDEST_MLFLOW}")
    if old_mlflow and "setuptools" not in names:
        # It imports `pkg_resources`, which later ones lack.
        lines.append("setuptools<81")
    return [*lines, *ENGINE_NEEDS]


def _pinned(requirement: Requirement) -> Version | None:
    for specifier in requirement.specifier:
        if specifier.operator == "==":
            try:
                return Version(specifier.version)
            except InvalidVersion:
                return None
    return None


def digest(requirements: Sequence[str], *, python: str) -> str:
    """Name the environment of these requirements; our own needs are part of it."""
    wanted = sorted(set(to_install(requirements)))
    return hashlib.sha256(json.dumps([python, wanted]).encode()).hexdigest()
