"""Make questions about torch functions, for the tests of all explainers."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from explain.question import Question


def question(
    function: Callable[[torch.Tensor], torch.Tensor],
    rows: np.ndarray,
    background: np.ndarray,
    *,
    target: int = 0,
    **options: Any,
) -> Question:
    def predict(batch: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return function(torch.from_numpy(batch)).double().numpy()

    return Question(
        rows=rows,
        background=background,
        targets=np.full(len(rows), target),
        predict=predict,
        function=function,
        **options,
    )
