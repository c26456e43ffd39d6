"""Gather what a version's page shows first, most of it from MLflow."""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from django.conf import settings

from inference.models import LoadedVersion
from registry.models import ModelVersion, RegistrySync, Route

_LONGEST_EXAMPLE = 2000
# An artifact of more files is not measured while a page waits.
_MOST_FILES = 2000
_NONE = "–"


@dataclass(frozen=True, slots=True)
class MetricRow:
    """A metric of the version beside the default's; which way is better is unknown."""

    name: str
    own: str
    default: str
    difference: str


@dataclass(frozen=True, slots=True)
class VersionCard:
    """What a person asks first about a version."""

    version: ModelVersion
    # MLflow's page of the version; empty: the registry has no pages.
    mlflow_url: str
    tags: list[tuple[str, str]]
    # Of its training run.
    params: list[tuple[str, str]]
    kinds: str
    # None: it is not in the local cache.
    artifact_bytes: int | None
    # Of the process that has it, the one that loaded last.
    load_ms: int | None
    memory_bytes: int | None
    metrics: list[MetricRow]
    # None: the version is the default itself, or there is none.
    default: ModelVersion | None
    # Where it serves, in words.
    serves: list[str]
    is_shadow: bool
    example: str
    example_is_cut: bool


def of(version: ModelVersion) -> VersionCard:
    route = (
        Route.objects.filter(registered_model=version.registered_model)
        .select_related(*Route.VERSIONS)
        .first()
    )
    default = route.default_version if route is not None else None
    if default == version:
        default = None
    loaded = (
        LoadedVersion.objects.filter(
            model=version.registered_model.name,
            version=version.version,
            state=LoadedVersion.State.READY,
        )
        .order_by("-ready_at")
        .first()
    )
    example = _example(version.input_example)
    return VersionCard(
        version=version,
        mlflow_url=_mlflow_url(version),
        params=sorted(version.params.items()),
        tags=[
            (str(name), str(value))
            for name, value in sorted(version.tags.items())
            if not str(name).startswith("mlflow.")
        ],
        kinds=", ".join(map(str, version.flavors)),
        artifact_bytes=_bytes_of(version),
        load_ms=loaded.load_ms if loaded else None,
        memory_bytes=loaded.memory_bytes if loaded else None,
        metrics=compare(version.metrics, default.metrics if default else {}),
        default=default,
        serves=list(_places(version, route)),
        is_shadow=route is not None and route.shadow_version == version,
        example=example[:_LONGEST_EXAMPLE],
        example_is_cut=len(example) > _LONGEST_EXAMPLE,
    )


def compare(own: dict[str, Any], default: dict[str, Any]) -> list[MetricRow]:
    """Put metrics side by side by name, with the difference of those that both have."""
    return [
        MetricRow(
            name,
            _number(own.get(name)),
            _number(default.get(name)),
            _difference(own.get(name), default.get(name)),
        )
        for name in sorted(own.keys() | default.keys())
    ]


def _number(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, (int, float)) else _NONE


def _difference(own: object, default: object) -> str:
    if not isinstance(own, (int, float)) or not isinstance(default, (int, float)):
        return _NONE
    difference = own - default
    # A minus sign, not a hyphen.
    return f"{difference:+.4g}".replace("-", "−", 1) if difference else "0"


def _places(version: ModelVersion, route: Route | None) -> Iterator[str]:
    if version.published:
        yield "published: callers may name it"
    if route is None:
        return
    off = "" if route.enabled else ", which is off"
    if route.default_version == version:
        yield f"default of its route{off}, {route.default_weight_percent} %"
    weight = route.weight_of(version.pk)
    if weight is not None:
        yield f"canary of its route{off}, {weight} %"
    if route.fallback_version == version:
        yield f"fallback of its route{off}"
    if route.shadow_version == version:
        yield f"shadow of its route{off}, {route.shadow_percent} %"


def _mlflow_url(version: ModelVersion) -> str:
    registry = RegistrySync.objects.filter(pk=1).first()
    uri = registry.tracking_uri if registry is not None else ""
    if not uri.startswith(("http://", "https://")):
        return ""
    name = quote(version.registered_model.name, safe="")
    return f"{uri.rstrip('/')}/#/models/{name}/versions/{version.version}"


def _bytes_of(version: ModelVersion) -> int | None:
    if version.artifact_state != ModelVersion.ArtifactState.READY:
        return None
    folder: Path = settings.HOME.artifacts / version.artifact_digest
    return _size(folder)


def _size(folder: Path) -> int | None:
    """Return the bytes of all files; None if there are none, or too many to count."""
    total = seen = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            seen += 1
            if seen > _MOST_FILES:
                return None
            try:
                total += (Path(parent) / name).lstat().st_size
            except OSError:
                # It was removed meanwhile.
                return None
    return total if seen else None


def _example(instances: Any) -> str:
    return "" if instances is None else json.dumps(instances, indent=2)
