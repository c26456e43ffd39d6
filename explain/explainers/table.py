"""List the explainers by the name that callers use, the preferred one first."""

import contextlib
from collections.abc import Callable
from typing import NamedTuple

from explain.explainers import exact, gradient, permutation
from explain.question import Attributions, CannotExplain, Question

AUTO = "auto"


class Explainer(NamedTuple):
    attribute: Callable[[Question], Attributions]
    # What the explainer lacks for a question, as the end of a sentence; None: nothing.
    why_not: Callable[[Question], str | None]


EXPLAINERS = {
    "gradient": Explainer(gradient.attribute, gradient.why_not),
    "exact": Explainer(exact.attribute, exact.why_not),
    "permutation": Explainer(permutation.attribute, permutation.why_not),
}


def answer(question: Question, *, method: str) -> tuple[str, Attributions]:
    """Explain by the named method, or by the first that can; return its name too.

    Raises CannotExplain with a message for the caller.
    """
    if method == AUTO:
        return _first_that_can(question)
    explainer = EXPLAINERS.get(method)
    if explainer is None:
        names = ", ".join([AUTO, *EXPLAINERS])
        raise CannotExplain(f"There is no method {method[:40]!r}; there are {names}.")
    reason = explainer.why_not(question)
    if reason is not None:
        raise CannotExplain(f"The method {method!r} {reason}.")
    return method, explainer.attribute(question)


def _first_that_can(question: Question) -> tuple[str, Attributions]:
    able = [name for name, each in EXPLAINERS.items() if each.why_not(question) is None]
    for name in able[:-1]:
        # Only a try shows that the budget is too small or the model has no gradients.
        with contextlib.suppress(CannotExplain):
            return name, EXPLAINERS[name].attribute(question)
    return able[-1], EXPLAINERS[able[-1]].attribute(question)
