"""Compute exact SHAP values for models with few features, from all coalitions."""

from typing import Any

from explain.explainers import row_by_row
from explain.question import Attributions, CannotExplain, Question, choose_background

_MOST_FEATURES = 10
_DEFAULT_SAMPLES = 100_000


def why_not(question: Question) -> str | None:
    if question.rows.shape[1] > _MOST_FEATURES:
        return f"needs a model with at most {_MOST_FEATURES} features"
    return None


def attribute(question: Question) -> Attributions:
    """Try every coalition, with as many background rows as the budget allows."""
    features = question.rows.shape[1]
    coalitions = 2**features
    budget = question.samples or _DEFAULT_SAMPLES
    if budget < coalitions:
        raise CannotExplain(
            f"{features} features need at least {coalitions} samples to be exact."
        )
    background = choose_background(
        question.background, at_most=budget // coalitions, seed=question.seed
    )

    def new_explainer(output: Any, masker: Any) -> Any:
        import shap

        return shap.explainers.Exact(output, masker)

    return row_by_row.attribute(
        question, background, new_explainer=new_explainer, max_evals=coalitions
    )
