"""The servers Modelyard is measured beside, each as its own documentation sets it up.

All of them run the same exported model on the same rows, each with one model process
(or what it starts by default) and torch on one thread. Rows are positional, which is
shorter and cheaper to read, or by column name, for those peers that know names.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Rows = list[list[float]]
NamedRows = list[dict[str, float]]


@dataclass(frozen=True, slots=True)
class Setup:
    """What a peer may use: its environment, a folder of its own, the model."""

    environment: Path
    folder: Path
    # Folder of the MLflow model, and the .pt2 file in it.
    artifact: Path
    exported: Path
    port: int
    columns: tuple[str, ...] = ()

    @property
    def python(self) -> str:
        return str(self.environment / "bin" / "python")

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@dataclass(frozen=True, slots=True)
class Launch:
    """How to start a prepared peer, and how to ask it."""

    command: tuple[str, ...]
    ready_url: str
    predict_url: str
    body: Callable[[Rows], dict[str, Any]]
    environment: Mapping[str, str] = field(default_factory=dict)
    # How it is asked with named columns; None: it knows no names, and gets positions.
    named_body: Callable[[NamedRows], dict[str, Any]] | None = None
    named_url: str = ""


@dataclass(frozen=True, slots=True)
class Peer:
    """A server (or one way to configure it); `family` groups the ways."""

    name: str
    family: str
    requirements: tuple[str, ...]
    prepare: Callable[[Setup], Launch]


ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
TORCH = "torch==2.13.0"


def open_inference_body(rows: Rows) -> dict[str, Any]:
    """The Open Inference Protocol's JSON form of one float32 tensor."""
    return {
        "inputs": [
            {
                "name": "input",
                "shape": [len(rows), len(rows[0])],
                "datatype": "FP32",
                "data": [value for row in rows for value in row],
            }
        ]
    }


def open_inference_columns(rows: NamedRows) -> dict[str, Any]:
    """The same protocol's form of named columns: a tensor of one value per row each."""
    return {
        "inputs": [
            {
                "name": name,
                "shape": [len(rows), 1],
                "datatype": "FP32",
                "data": [row[name] for row in rows],
            }
            for name in rows[0]
        ]
    }
