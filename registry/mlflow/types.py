"""MLflow's models, versions and files as plain data."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

# Any value that JSON can hold, such as a column's spec or a metadata document.
Json = Any


class RegistryUnreachable(Exception):
    """MLflow or its artifact store failed to answer; the text may be shown."""


class ArtifactRefused(Exception):
    """The artifact breaks a rule of ours; the text may be shown."""


@dataclass(frozen=True, slots=True)
class RemoteVersion:
    version: int
    source: str
    run_id: str
    status: str
    registered_at: datetime
    description: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RemoteModel:
    name: str
    description: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    aliases: Mapping[str, int] = field(default_factory=dict)
    versions: tuple[RemoteVersion, ...] = ()


@dataclass(frozen=True, slots=True)
class Training:
    """What MLflow knows of how a version was trained."""

    metrics: Mapping[str, float | None] = field(default_factory=dict)
    params: Mapping[str, str] = field(default_factory=dict)
    # Whose run it was; empty: unknown.
    user: str = ""


@dataclass(frozen=True, slots=True)
class ModelFile:
    """The `MLmodel` file of an artifact, and its input example."""

    flavors: tuple[str, ...] = ()
    signature: Mapping[str, Json] = field(default_factory=dict)
    metadata: Json = field(default_factory=dict)
    # Instances, or None if none were logged or they are too large to show.
    input_example: Json = None
    # Packages that it asks for, as lines for pip, and the Python that logged it.
    requirements: tuple[str, ...] = ()
    python: str = ""
    # Sentences about what could not be read.
    problems: tuple[str, ...] = ()


class ModelRegistry(Protocol):
    """The queries to MLflow; tests answer them from memory.

    Every method raises RegistryUnreachable; `model_file` and `download` also raise
    ArtifactRefused.
    """

    def models(self) -> list[RemoteModel]: ...

    def training(self, name: str, version: RemoteVersion) -> Training: ...

    def model_file(self, name: str, version: int) -> ModelFile: ...

    def download(
        self, name: str, version: int, *, into: Path, max_bytes: int
    ) -> None: ...

    def set_alias(self, name: str, alias: str, version: int) -> None: ...


def input_name(spec: Json, unnamed: str = "input") -> str:
    """Return an input's name as requests write it; pandas also uses numbers."""
    name = spec.get("name")
    return unnamed if name is None else str(name)
