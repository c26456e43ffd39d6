"""Test what every explainer in the table promises."""

import numpy as np
import pytest
import torch

from explain.explainers.table import EXPLAINERS
from tests.explain.explainers.questions import question
from tests.explain.fakes import mlp, random_rows

FEATURES = 6


@pytest.fixture(params=EXPLAINERS)
def attribute(request):
    return EXPLAINERS[request.param].attribute


@pytest.fixture
def background():
    return random_rows(30, FEATURES, seed=1)


def test_linear_model_gets_weight_times_distance_from_the_mean(attribute, background):
    weights = np.array([[1.0, -2.0, 0.5, 3.0, 0.0, -1.0]], dtype="float32")
    rows = random_rows(3, FEATURES, seed=2)
    linear = torch.nn.Linear(FEATURES, 1)
    linear.weight.data = torch.from_numpy(weights)

    answer = attribute(question(linear, rows, background))

    expected = weights * (rows - background.mean(axis=0))
    np.testing.assert_allclose(answer.values, expected, atol=1e-5)


def test_values_and_base_value_add_up_to_the_output(attribute, background):
    network = mlp(FEATURES)
    rows = random_rows(5, FEATURES, seed=3)

    answer = attribute(question(network, rows, background, samples=2000))

    with torch.no_grad():
        output = network(torch.from_numpy(rows))[:, 0].numpy()
    total = answer.base_values + answer.values.sum(axis=1)
    np.testing.assert_allclose(total, output, atol=1e-3)
    np.testing.assert_allclose(answer.residuals, output - total, atol=1e-6)


def test_base_value_is_the_mean_output_over_the_background(attribute, background):
    network = mlp(FEATURES)

    answer = attribute(question(network, background[:1], background, target=1))

    with torch.no_grad():
        expected = network(torch.from_numpy(background))[:, 1].mean().item()
    assert answer.base_values[0] == pytest.approx(expected, abs=1e-6)


def test_feature_that_the_model_ignores_gets_zero(attribute, background):
    network = mlp(FEATURES - 1)
    rows = random_rows(2, FEATURES, seed=4)

    answer = attribute(
        question(lambda x: network(x[:, 1:]), rows, background, samples=2000)
    )

    np.testing.assert_allclose(answer.values[:, 0], 0, atol=1e-9)
    assert abs(answer.values[:, 1:]).min() > 0


def test_same_question_gets_the_same_answer(attribute, background):
    network = mlp(FEATURES)
    rows = random_rows(2, FEATURES, seed=5)

    first = attribute(question(network, rows, background, seed=7, samples=1000))
    second = attribute(question(network, rows, background, seed=7, samples=1000))

    np.testing.assert_array_equal(first.values, second.values)


def test_row_gets_the_same_values_alone_and_in_company(attribute, background):
    network = mlp(FEATURES)
    rows = random_rows(4, FEATURES, seed=6)

    together = attribute(question(network, rows, background, samples=2000))
    alone = [
        attribute(question(network, rows[index : index + 1], background, samples=2000))
        for index in range(len(rows))
    ]

    np.testing.assert_allclose(
        together.values, [each.values[0] for each in alone], atol=1e-6
    )


def test_budget_bounds_the_rows_given_to_the_model(attribute, background):
    network = mlp(FEATURES)
    rows = random_rows(2, FEATURES, seed=8)
    seen = 0

    def counted(batch: torch.Tensor) -> torch.Tensor:
        nonlocal seen
        seen += len(batch)
        return network(batch)

    answer = attribute(question(counted, rows, background, samples=400))

    # In addition to coalitions or paths: the rows themselves and the background.
    overhead = 2 * len(rows) + len(rows) * len(background) + 1
    assert answer.samples.max() <= 400 + len(background) + 2
    assert seen <= len(rows) * 400 + overhead
