"""Define the input and the output of every explainer."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

# Rows in the dtype of the model's input: floats, or integers and booleans as numbers.
Rows = NDArray[Any]
Floats = NDArray[np.float64]


class CannotExplain(ValueError):
    """An explainer cannot answer a question; the message is for the caller."""


@dataclass(frozen=True, slots=True)
class Question:
    """A request to explain output column `targets[i]` of `rows[i]`, for each i."""

    # [rows, features] and [background rows, features]
    rows: Rows
    background: Rows
    targets: NDArray[np.intp]
    # [n, features] → [n, outputs]
    predict: Callable[[Rows], Floats]
    # The same as a differentiable function, if the model is a torch function of floats.
    function: "Callable[[torch.Tensor], torch.Tensor] | None" = None
    # Most rows given to the model per explained row; 0: the explainer's default.
    samples: int = 0
    seed: int = 0
    # Reports seconds of waiting, for which nobody is charged.
    waited: Callable[[float], None] = lambda seconds: None


@dataclass(frozen=True, slots=True)
class Attributions:
    """SHAP values `[rows, features]`; the other fields have one entry per row.

    `outputs ≈ base_values + values.sum(axis=1)`; the difference is the additivity
    residual, which measures the explainer's numerical error.
    """

    values: Floats
    base_values: Floats
    outputs: Floats
    # Rows given to the model.
    samples: NDArray[np.intp]

    @property
    def residuals(self) -> Floats:
        explained: Floats = self.base_values + self.values.sum(axis=1)
        return self.outputs - explained


def choose_background(background: Rows, *, at_most: int, seed: int) -> Rows:
    """Return at most `at_most` random background rows, the same for the same seed."""
    if at_most >= len(background):
        return background
    chosen = np.random.default_rng(seed).permutation(len(background))[:at_most]
    part: Rows = background[np.sort(chosen)]
    return part
