import dataclasses

import pytest

from explain.explainers import table
from explain.question import CannotExplain
from tests.explain.explainers.questions import question
from tests.explain.fakes import mlp, random_rows


def ask(features=4, **changes):
    rows, background = (
        random_rows(1, features, seed=1),
        random_rows(5, features, seed=2),
    )
    return dataclasses.replace(question(mlp(features), rows, background), **changes)


def test_auto_takes_gradients_where_there_are_some():
    method, _ = table.answer(ask(), method="auto")

    assert method == "gradient"


def test_auto_is_exact_for_a_few_features_without_gradients():
    method, _ = table.answer(ask(function=None), method="auto")

    assert method == "exact"


def test_auto_permutes_many_features_without_gradients():
    method, _ = table.answer(ask(features=12, function=None), method="auto")

    assert method == "permutation"


def test_auto_goes_on_where_gradients_do_not_flow():
    method, answer = table.answer(ask(function=lambda x: x.detach()), method="auto")

    assert method == "exact"
    assert abs(answer.values).max() > 0


def test_unknown_method_is_refused_with_the_known_ones():
    with pytest.raises(CannotExplain, match="auto, gradient, exact, permutation"):
        table.answer(ask(), method="magic")


def test_gradient_method_without_gradients_is_refused():
    with pytest.raises(CannotExplain, match="needs a torch model"):
        table.answer(ask(function=None), method="gradient")


def test_budget_too_small_for_a_method_is_refused_with_the_least():
    with pytest.raises(CannotExplain, match="at least 25 samples"):
        table.answer(ask(features=12, function=None, samples=24), method="permutation")
