"""Run one of shap's own explainers on a model, one row at a time."""

import functools
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from explain.question import Attributions, Floats, Question, Rows

_Output = Callable[[Rows], Floats]


def attribute(
    question: Question,
    background: Rows,
    *,
    # (model output, masker) → a shap explainer; shap has no types.
    new_explainer: Callable[[_Output, Any], Any],
    max_evals: int,
) -> Attributions:
    """Explain each row alone, so that its values do not depend on the other rows."""
    started_at = time.perf_counter()
    shap = _import_shap()
    question.waited(time.perf_counter() - started_at)
    masker = shap.maskers.Independent(background, max_samples=len(background))
    count = len(question.rows)
    values = np.zeros(question.rows.shape)
    base_values, outputs = np.zeros(count), np.zeros(count)
    samples = np.zeros(count, dtype=np.intp)
    for index, target in enumerate(question.targets):
        row = question.rows[index : index + 1]
        output = _CountedOutput(question, int(target))
        outputs[index] = output(row)[0]
        explanation = new_explainer(output, masker)(
            row, max_evals=max_evals, silent=True
        )
        values[index] = explanation.values[0]
        base_values[index] = np.ravel(explanation.base_values)[0]
        samples[index] = output.rows
    return Attributions(values, base_values, outputs, samples)


@functools.cache
def _import_shap() -> Any:
    """Import shap, and make its loops run as plain Python, without numba.

    numba would compile them during the first explanation, for seconds in which the
    engine serves little else. Later that saves only microseconds per coalition, for
    which the model runs on many rows anyway.
    """
    # Deferred: shap takes seconds to import, and gradients do not need it.
    import shap

    for name, module in list(sys.modules.items()):
        # shap compares its link functions by identity; they compile quickly.
        if name.startswith("shap.") and name != "shap.links":
            for attribute, value in list(vars(module).items()):
                if hasattr(value, "py_func"):
                    setattr(module, attribute, value.py_func)
    return shap


class _CountedOutput:
    """One output of the model as a function for shap; it counts the rows."""

    def __init__(self, question: Question, target: int) -> None:
        self._predict = question.predict
        self._dtype = question.rows.dtype
        self._target = target
        self.rows = 0

    def __call__(self, rows: Rows) -> Floats:
        self.rows += len(rows)
        batch = np.ascontiguousarray(rows, dtype=self._dtype)
        chosen: Floats = self._predict(batch)[:, self._target]
        return chosen
