"""Set up the servers that Modelyard is compared with, as their documentation says.

All run the same exported model on the same rows, each with one model process (or its
default number) and torch on one thread. Rows are lists of values, which are shorter and
cheaper to read, or have column names if the peer supports them.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Rows = list[list[float]]
NamedRows = list[dict[str, float]]


@dataclass(frozen=True, slots=True)
class Setup:
    """The resources of a peer: its environment, its own folder, the model."""

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
    """How to start a prepared peer, and how to send it requests."""

    command: tuple[str, ...]
    ready_url: str
    predict_url: str
    body: Callable[[Rows], dict[str, Any]]
    environment: Mapping[str, str] = field(default_factory=dict)
    # Makes a body with named columns; None: the peer does not support names.
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
    """Return the Open Inference Protocol's JSON for one float32 tensor."""
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
    """Return the same protocol's JSON for named columns: one tensor per column."""
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
