"""Compute SHAP values of any model from random orders of its features.

The method is by Strumbelj & Kononenko (2014). shap walks each order forwards and
backwards, so the values add up exactly even for few orders.
"""

from typing import Any

import numpy as np

from explain.explainers import row_by_row
from explain.question import Attributions, CannotExplain, Question, choose_background

_DEFAULT_SAMPLES = 10_000
_ENOUGH_BACKGROUND = 50


def why_not(question: Question) -> str | None:
    return None


def attribute(question: Question) -> Attributions:
    """Explain; spend the budget on background rows first, then on more orders."""
    features = question.rows.shape[1]
    # Coalitions of one order, forwards and backwards.
    coalitions = 2 * features + 1
    budget = question.samples or max(_DEFAULT_SAMPLES, 10 * coalitions)
    if budget < coalitions:
        raise CannotExplain(
            f"{features} features need at least {coalitions} samples by permutation."
        )
    background = choose_background(
        question.background,
        at_most=min(_ENOUGH_BACKGROUND, budget // coalitions),
        seed=question.seed,
    )
    orders = budget // (coalitions * len(background))

    def new_explainer(output: Any, masker: Any) -> Any:
        import shap

        return shap.PermutationExplainer(output, masker, seed=question.seed)

    return row_by_row.attribute(
        question,
        background,
        new_explainer=new_explainer,
        max_evals=orders * coalitions,
    )


def warm_up() -> None:
    """Import shap, which takes seconds."""
    attribute(
        Question(
            rows=np.eye(2),
            background=np.zeros((2, 2)),
            targets=np.zeros(2, dtype=np.intp),
            predict=lambda rows: rows.sum(axis=1, keepdims=True),
        )
    )
