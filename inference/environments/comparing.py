"""Compare what a version asks for with what an environment has. Without I/O.

Versions of packages matter in three degrees (docs/environments.md). A range is meant as
it is written. An exact version is what happened to be installed when the model was
logged, so another one differs only where objects of the package may not survive it.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from packaging.markers import (
    Marker,
    UndefinedComparison,
    UndefinedEnvironmentName,
    default_environment,
)
from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

# Their objects lie in artifacts, and another minor version may not read them.
_BY_MINOR = frozenset(
    {
        "scikit-learn",
        "xgboost",
        "lightgbm",
        "catboost",
        "imbalanced-learn",
        "statsmodels",
        "sktime",
        "pmdarima",
        "prophet",
        "spacy",
        "keras",
        "tensorflow",
        "autogluon",
    }
)
# A later version reads what an earlier one wrote, but not the other way round.
_READS_OLDER = frozenset({"torch", "torchvision", "torchaudio", "onnx", "onnxruntime"})
# Nothing of them is in an artifact. MLflow only reads it, and each reads older ones.
_NEVER = frozenset(
    {
        "mlflow",
        "mlflow-skinny",
        "cffi",
        "defusedxml",
        "packaging",
        "protobuf",
        "psutil",
        "pyyaml",
        "requests",
        "typing-extensions",
    }
)
# They install packages; no model calls them.
_INSTALLERS = frozenset({"pip", "setuptools", "wheel"})
# Another distribution of the same modules.
_SAME_MODULES: dict[str, tuple[str, ...]] = {
    "mlflow": ("mlflow-skinny",),
    "mlflow-skinny": ("mlflow",),
    "faiss-gpu": ("faiss-cpu",),
    "opencv-python": ("opencv-python-headless", "opencv-contrib-python"),
    "psycopg2": ("psycopg2-binary",),
    "tensorflow": ("tensorflow-cpu",),
    "xgboost": ("xgboost-cpu",),
}
# Versions that begin with a year say nothing of compatibility.
_LIKE_A_YEAR = 20
_MOST_FINDINGS = 20


class Verdict(StrEnum):
    FITS = "fits"
    DIFFERS = "differs"
    LACKS = "lacks"


@dataclass(frozen=True, slots=True)
class Asked:
    """What a version asks for."""

    lines: Sequence[str] = ()
    # Such as 3.12.1; anything else: unknown.
    python: str = ""
    # Functions of its author lie in it as bytecode, which each Python writes otherwise.
    bytecode: bool = False


@dataclass(frozen=True, slots=True)
class Installed:
    """What an environment has; packages by their canonical names."""

    python: str
    packages: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Fit:
    verdict: Verdict
    # Sentences for people.
    findings: tuple[str, ...] = ()


def compare(asked: Asked, installed: Installed) -> Fit:
    lacks: list[str] = []
    differs: list[str] = []
    wanted, here = minor(asked.python), minor(installed.python)
    if wanted and wanted != here:
        if asked.bytecode:
            lacks.append(
                f"It needs Python {wanted}: its functions are stored as bytecode of "
                f"that Python, and Python {here} is here."
            )
        else:
            differs.append(f"Python {wanted} was asked for, {here} is here.")
    for line in asked.lines:
        if line.startswith("#"):
            differs.append(f"Not read: {line[1:].strip()}")
            continue
        try:
            requirement = Requirement(line)
        except InvalidRequirement:
            differs.append(f"Not read: {line}")
            continue
        if not _applies(requirement.marker, here):
            continue
        name = canonicalize_name(requirement.name)
        found = _find(name, installed.packages)
        if name in _INSTALLERS:
            continue
        if found is None:
            needed = f"{name}{requirement.specifier}"
            lacks.append(f"It needs {needed}, which is not installed.")
        elif problem := _differs(name, requirement.specifier, found):
            differs.append(problem)
    verdict = Verdict.LACKS if lacks else Verdict.DIFFERS if differs else Verdict.FITS
    return Fit(verdict, tuple(_bounded([*lacks, *differs])))


def minor(python: str) -> str:
    """Return 3.11 of 3.11.7, and nothing for what is no version."""
    try:
        release = Version(python).release
    except InvalidVersion:
        return ""
    return f"{release[0]}.{release[1]}" if len(release) > 1 else ""


def _applies(marker: Marker | None, python: str) -> bool:
    if marker is None:
        return True
    try:
        return marker.evaluate(
            {**default_environment(), "python_version": python}  # type: ignore[dict-item]
        )
    except (UndefinedComparison, UndefinedEnvironmentName, InvalidVersion):
        return True


def _find(name: str, packages: Mapping[str, str]) -> str | None:
    names = (name, *_SAME_MODULES.get(name, ()))
    return next((packages[known] for known in names if known in packages), None)


def _differs(name: str, specifiers: SpecifierSet, found: str) -> str:
    """Return a sentence if the installed version is not what was asked for."""
    try:
        here = Version(found)
    except InvalidVersion:
        return ""
    for specifier in specifiers:
        exact = specifier.operator in ("==", "===")
        if not exact or specifier.version.endswith(".*"):
            if not specifier.contains(here, prereleases=True) and name not in _NEVER:
                return f"{name}{specifiers} was asked for, {found} is here."
            continue
        try:
            asked = Version(specifier.version)
        except InvalidVersion:
            return f"{name}{specifier} was asked for, {found} is here."
        if not _survives(name, asked, here):
            return f"{name} {_short(asked)} was asked for, {_short(here)} is here."
    return ""


def _survives(name: str, asked: Version, here: Version) -> bool:
    """Return whether objects of the package survive the change of its version."""
    before, after = (asked.major, asked.minor), (here.major, here.minor)
    if name in _NEVER or before == after:
        return True
    if name in _BY_MINOR:
        return False
    if name in _READS_OLDER:
        return asked.major == here.major and before < after
    return asked.major == here.major or asked.major >= _LIKE_A_YEAR


def _short(version: Version) -> str:
    return f"{version.major}.{version.minor}"


def _bounded(findings: Iterable[str]) -> Iterable[str]:
    found = list(dict.fromkeys(findings))
    yield from found[:_MOST_FINDINGS]
    if len(found) > _MOST_FINDINGS:
        yield f"And {len(found) - _MOST_FINDINGS} more."
