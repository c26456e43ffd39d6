import numpy as np
import pytest
import torch

from explain.explainers import exact, gradient
from explain.question import CannotExplain
from tests.explain.explainers.questions import question
from tests.explain.fakes import mlp, random_rows


def test_values_agree_with_the_expected_gradients_of_shap():
    import shap

    network = mlp(6)
    rows, background = random_rows(1, 6, seed=1), random_rows(40, 6, seed=2)

    ours = gradient.attribute(question(network, rows, background))
    explainer = shap.GradientExplainer(network, torch.from_numpy(background))
    theirs = explainer.shap_values(torch.from_numpy(rows), nsamples=1500, rseed=0)

    # shap draws its points at random; 1,500 leave this much noise.
    np.testing.assert_allclose(ours.values, theirs[:, :, 0], atol=2e-3)
    assert abs(ours.values).max() > 20e-3


def test_values_rank_features_as_exact_shapley_values_do():
    weights = torch.tensor([[2.0], [-1.0], [0.5], [0.1]])
    rows, background = random_rows(5, 4, seed=1), random_rows(40, 4, seed=2)
    asked = question(lambda x: torch.sigmoid(x @ weights), rows, background)

    approximate = gradient.attribute(asked).values
    precise = exact.attribute(asked).values

    assert np.corrcoef(approximate.ravel(), precise.ravel())[0, 1] > 0.99


def test_product_is_shared_equally_between_its_factors():
    # The path from (0, 0) is straight, so by symmetry each factor gets half.
    rows = np.array([[2.0, 3.0]], dtype="float32")
    background = np.zeros((1, 2), dtype="float32")

    answer = gradient.attribute(
        question(lambda x: x[:, :1] * x[:, 1:], rows, background)
    )

    np.testing.assert_allclose(answer.values, [[3.0, 3.0]], rtol=1e-6)


def test_steep_model_gets_more_passes_than_a_smooth_one():
    rows, background = random_rows(1, 4, seed=3), random_rows(20, 4, seed=4)

    smooth = gradient.attribute(question(lambda x: x[:, :1], rows, background))
    steep = gradient.attribute(
        question(lambda x: torch.sigmoid(30 * x[:, :1]), rows, background)
    )

    assert steep.samples[0] > smooth.samples[0]
    assert abs(steep.residuals[0]) < 5e-3


def test_many_rows_are_explained_in_bounded_passes():
    largest = 0

    def watched(batch: torch.Tensor) -> torch.Tensor:
        nonlocal largest
        largest = max(largest, batch.numel())
        return batch.sum(dim=1, keepdim=True)

    rows, background = random_rows(50, 30, seed=5), random_rows(100, 30, seed=6)
    gradient.attribute(question(watched, rows, background))

    assert largest <= 2**20


def test_each_row_is_explained_for_its_own_target():
    network = mlp(4, outputs=3)
    rows, background = random_rows(3, 4, seed=7), random_rows(10, 4, seed=8)
    asked = question(network, rows, background)

    asked.targets[:] = [0, 1, 2]
    mixed = gradient.attribute(asked)

    for target in range(3):
        single = gradient.attribute(
            question(network, rows[target : target + 1], background, target=target)
        )
        np.testing.assert_allclose(mixed.values[target], single.values[0], atol=1e-6)


def test_gradients_flow_through_an_exported_program(tmp_path):
    network = mlp(5)
    rows, background = random_rows(2, 5, seed=9), random_rows(10, 5, seed=10)
    program = torch.export.export(
        network,
        (torch.from_numpy(rows),),
        dynamic_shapes=({0: torch.export.Dim.AUTO},),
    )

    exported = gradient.attribute(question(program.module(), rows, background))
    eager = gradient.attribute(question(network, rows, background))

    np.testing.assert_allclose(exported.values, eager.values, atol=1e-6)


def test_model_that_blocks_gradients_is_refused():
    rows = random_rows(1, 3, seed=11)

    with pytest.raises(CannotExplain, match="gradients"):
        gradient.attribute(question(lambda x: x.detach(), rows, rows))
