"""Decide in which environment each version runs, and store how it fits there.

Without `MODELYARD_ENVIRONMENTS=build` that is always this installation's own. With it,
a version that does not fit there runs in a built one that fits, or waits for one of its
own. A version that is loaded stays where it is until the other environment is ready.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from django.conf import settings

from inference.engine.wire.messages import BASE_ENVIRONMENT
from inference.environments import comparing, folders, needs, pythons
from inference.environments.comparing import Asked, Fit, Installed, Verdict
from inference.models import LoadedVersion, ModelEnvironment
from registry.models import ModelVersion

_State = ModelEnvironment.State
_FIELDS = (
    "registered_model__name",
    "registered_model__trusted",
    "version",
    "flavors",
    "artifact_state",
    "artifact_digest",
    "requirements",
    "python_version",
    "environment",
    "environment_fit",
)
_AT_ONCE = 500
# Increased with every change of the rules in `comparing.py`.
_RULES = 1


@dataclass(frozen=True, slots=True)
class _Known:
    """The environments, and in which ones versions are loaded."""

    rows: Mapping[str, ModelEnvironment]
    # Of those that are ready.
    installed: Mapping[str, Installed]
    loaded: Mapping[tuple[str, int], frozenset[str]]


@dataclass(frozen=True, slots=True)
class ChosenEnvironment:
    """Where a version runs; `wanted` is the environment to build for it."""

    environment: str
    fit: Fit
    wanted: str = ""
    # The Python of the wanted one, e.g. 3.12.
    python: str = ""


def settle(models: Iterable[str] | None = None) -> list[str]:
    """Settle the versions of these models, or all; return the models that changed."""
    rows = ModelVersion.objects.all()
    if models is not None:
        rows = rows.filter(registered_model__name__in=list(models))
    return _settle(rows)


def settle_outdated() -> list[str]:
    """Settle some versions that were compared with an earlier installation."""
    rows = ModelVersion.objects.exclude(environment_fit__compared_with=basis())
    empty = ModelVersion.objects.filter(environment_fit={})
    ids = [*rows.values_list("pk", flat=True)[:_AT_ONCE]]
    ids += empty.values_list("pk", flat=True)[: _AT_ONCE - len(ids)]
    return _settle(ModelVersion.objects.filter(pk__in=ids)) if ids else []


def basis() -> str:
    """Return what a comparison depends on, apart from the version itself."""
    return " ".join(
        (
            str(_RULES),
            settings.MODELYARD_ENVIRONMENTS,
            folders.base_digest(),
            *pythons.installed(),
        )
    )


def _settle(rows: Any) -> list[str]:
    versions = list(rows.select_related("registered_model").only(*_FIELDS))
    if not versions:
        return []
    known = _read_known({version.registered_model.name for version in versions})
    written: list[ModelVersion] = []
    changed: set[str] = set()
    for version in versions:
        place = place_of(version, known)
        stored = {
            "verdict": place.fit.verdict.value,
            "findings": list(place.fit.findings),
            "environment": place.environment,
            "wanted": place.wanted,
            "python": place.python,
            "compared_with": basis(),
        }
        before = {**version.environment_fit, "compared_with": basis()}
        if stored != before or place.environment != version.environment:
            changed.add(version.registered_model.name)
        elif stored == version.environment_fit:
            continue
        version.environment = place.environment
        version.environment_fit = stored
        written.append(version)
    ModelVersion.objects.bulk_update(
        written, ["environment", "environment_fit"], batch_size=100
    )
    return sorted(changed)


def place_of(version: ModelVersion, known: _Known) -> ChosenEnvironment:
    if not runs_own_code(version):
        return ChosenEnvironment(BASE_ENVIRONMENT, Fit(Verdict.FITS))
    asked = Asked(
        lines=version.requirements,
        python=version.python_version,
        bytecode=_holds_bytecode(version),
    )
    loaded = known.loaded.get(
        (version.registered_model.name, version.version), frozenset()
    )
    here = _proven(
        comparing.compare(asked, folders.base()),
        proven=BASE_ENVIRONMENT in loaded or _was_proven(version),
    )
    in_base = ChosenEnvironment(BASE_ENVIRONMENT, here)
    if (
        settings.MODELYARD_ENVIRONMENTS != "build"
        or not version.registered_model.trusted
        or here.verdict is Verdict.FITS
    ):
        return in_base
    python, problem = _choose_python(asked)
    if problem:
        return ChosenEnvironment(BASE_ENVIRONMENT, _with(here, problem))
    # An environment is built with a Python that exists, so only that counts from here.
    asked = Asked(asked.lines, python, asked.bytecode)
    if comparing.compare(asked, folders.base()).verdict is Verdict.FITS:
        return in_base
    own = needs.digest(version.requirements, python=python)
    return _built_place(version, asked, own, in_base, loaded, known)


def _built_place(
    version: ModelVersion,
    asked: Asked,
    own: str,
    in_base: ChosenEnvironment,
    loaded: frozenset[str],
    known: _Known,
) -> ChosenEnvironment:
    """Choose a built environment; prefer its own, then one that fits as it is."""
    if own in known.installed:
        fit = comparing.compare(asked, known.installed[own])
        return ChosenEnvironment(own, fit, wanted=own, python=asked.python)
    # It is part of what an environment must have, as our own needs may have grown.
    everything = Asked(
        (*asked.lines, *needs.ENGINE_NEEDS), asked.python, asked.bytecode
    )
    for digest, installed in known.installed.items():
        if comparing.compare(everything, installed).verdict is Verdict.FITS:
            return ChosenEnvironment(digest, Fit(Verdict.FITS))
    waits_for = {"wanted": own, "python": asked.python}
    row = known.rows.get(own)
    if row is not None and row.state == _State.FAILED:
        failed = f"An environment of its own could not be built: {row.error}"
        if in_base.fit.verdict is Verdict.DIFFERS:
            return replace(in_base, fit=_with(in_base.fit, failed), **waits_for)
        return ChosenEnvironment(own, _with(in_base.fit, failed), **waits_for)
    soon = _with(in_base.fit, "An environment of its own is being built.")
    current = version.environment
    if current in loaded and (
        current == BASE_ENVIRONMENT or current in known.installed
    ):
        return ChosenEnvironment(current, soon, **waits_for)
    return ChosenEnvironment(own, soon, **waits_for)


def runs_own_code(version: ModelVersion) -> bool:
    """Return whether loading runs its author's Python, so that packages matter."""
    if version.artifact_state != ModelVersion.ArtifactState.READY:
        return True
    program = _artifact(version) / "data" / "model.pt2"
    return not ("pytorch" in version.flavors and program.is_file())


def _holds_bytecode(version: ModelVersion) -> bool:
    return (
        version.artifact_state == ModelVersion.ArtifactState.READY
        and (_artifact(version) / "python_model.pkl").is_file()
    )


def _artifact(version: ModelVersion) -> Path:
    folder: Path = settings.HOME.artifacts / version.artifact_digest
    return folder


def _proven(fit: Fit, *, proven: bool) -> Fit:
    """Believe a version that has loaded here although it asks for what is missing."""
    if fit.verdict is not Verdict.LACKS or not proven:
        return fit
    return Fit(Verdict.DIFFERS, (*fit.findings, _PROVEN))


_PROVEN = "It was loaded without that."


def _was_proven(version: ModelVersion) -> bool:
    fit = version.environment_fit
    return fit.get("compared_with") == basis() and _PROVEN in fit["findings"]


def _with(fit: Fit, *sentences: str) -> Fit:
    return Fit(fit.verdict, (*fit.findings, *sentences))


def _choose_python(asked: Asked) -> tuple[str, str]:
    """Return the Python to build with, or else a sentence on why there is none."""
    wanted = comparing.minor(asked.python) or pythons.OWN
    obstacle = pythons.obstacle(wanted)
    if not obstacle:
        return wanted, ""
    if asked.bytecode:
        return "", f"No environment is built for it: {obstacle}."
    return pythons.OWN, ""


def _read_known(models: Collection[str]) -> _Known:
    rows: dict[str, ModelEnvironment] = {}
    loaded: dict[tuple[str, int], set[str]] = defaultdict(set)
    installed: dict[str, Installed] = {}
    for row in ModelEnvironment.objects.only("digest", "state", "error"):
        rows[row.digest] = row
        if row.state != _State.READY:
            continue
        built = folders.built(settings.HOME.environments / row.digest)
        if built is not None:
            installed[row.digest] = built.installed()
    for model, number, environment in LoadedVersion.objects.filter(
        state__in=(LoadedVersion.State.READY, LoadedVersion.State.EVICTED),
        model__in=models,
    ).values_list("model", "version", "engine__environment"):
        loaded[model, number].add(environment)
    return _Known(
        rows=rows,
        installed=installed,
        loaded={key: frozenset(names) for key, names in loaded.items()},
    )
