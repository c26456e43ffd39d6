"""Fake a loaded version for explainers, without an engine."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from inference.engine.signatures.signature import Column, Layout, Signature, Task
from inference.engine.wire.tensors import Tensor

LABELS = ("malignant", "benign")


class FakeModel:
    """An ExplainableModel over a torch function; `differentiable=False` hides that."""

    def __init__(
        self,
        signature: Signature,
        folder: Path,
        function: Callable[[torch.Tensor], torch.Tensor],
        *,
        differentiable: bool = True,
    ) -> None:
        self.signature = signature
        self.path = folder
        self.torch_function = function if differentiable else None
        self.cache: dict[str, Any] = {}
        self.waited_s = 0.0
        self._function = function

    def predict(self, tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
        if self.signature.layout is Layout.MATRIX:
            rows = torch.from_numpy(np.array(tensors[0].data))
        else:
            columns = [tensor.data.astype("float32") for tensor in tensors]
            rows = torch.from_numpy(np.stack(columns, axis=1))
        with torch.no_grad():
            return (Tensor("output", self._function(rows).numpy()),)


def matrix_signature(features: int, **changes: Any) -> Signature:
    facts: dict[str, Any] = {
        "layout": Layout.MATRIX,
        "columns": tuple(Column(f"column {index}") for index in range(features)),
        "dtype": "float32",
        "shape": (features,),
        "task": Task.CLASSIFICATION,
        "labels": LABELS,
        "background": "background.npy",
    }
    return Signature(**{**facts, **changes})


def write_background(folder: Path, rows: np.ndarray) -> None:
    np.save(folder / "background.npy", rows)


def mlp(features: int, outputs: int = 2, *, seed: int = 0) -> torch.nn.Module:
    """Return a small network with smooth and piecewise linear units, and a softmax."""
    generator = torch.Generator().manual_seed(seed)
    network = torch.nn.Sequential(
        torch.nn.Linear(features, 16),
        torch.nn.ReLU(),
        torch.nn.Linear(16, 16),
        torch.nn.Tanh(),
        torch.nn.Linear(16, outputs),
        torch.nn.Softmax(dim=-1),
    )
    for parameter in network.parameters():
        torch.nn.init.uniform_(parameter, -0.5, 0.5, generator=generator)
    return network.eval()


def random_rows(count: int, features: int, *, seed: int) -> np.ndarray:
    rows = np.random.default_rng(seed).normal(size=(count, features))
    return rows.astype("float32")
