import numpy as np
import pytest

from inference.engine.wire.tensors import Prediction, Tensor, object_array
from inference.prediction.first_prediction import NO_CODE, code_of


def code(*outputs):
    tensors = tuple(Tensor(f"o{n}", data) for n, data in enumerate(outputs))
    return code_of(Prediction(tensors, 0, 0, 1))


def numbers(*values):
    return code(np.array(values, np.float64))


def test_greater_numbers_have_greater_codes():
    values = [-1e300, -200.0, -1.5, -1e-9, 0.0, 1e-9, 0.25, 0.5, 0.75, 200.0, 1e300]

    codes = [numbers(value) for value in values]

    assert codes == sorted(codes)
    assert len(set(codes)) == len(codes)
    assert 0 <= codes[0] <= codes[-1] <= 0xFFFF


def test_numbers_that_differ_by_less_than_a_hundredth_may_share_a_code():
    assert numbers(100.0) == numbers(100.1)
    assert numbers(100.0) != numbers(101.0)


def test_what_is_no_number_has_a_code_of_its_own():
    assert numbers(float("nan")) > numbers(float("inf"))


def test_only_the_first_row_of_the_first_output_counts():
    one = np.array([1.0, 2.0])

    assert code(one, np.array([7.0, 8.0])) == numbers(1.0)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64, np.bool_])
def test_types_of_numbers_make_no_difference(dtype):
    assert code(np.array([1], dtype)) == numbers(1.0)
    assert code(np.array([[1]], dtype)) == numbers(1.0)


def test_of_scores_it_is_the_place_of_the_greatest():
    assert code(np.array([[0.1, 0.2, 0.7], [1, 0, 0]])) == numbers(2.0)


def test_equal_texts_have_equal_codes():
    def text(value):
        return code(object_array([value, "other"]))

    assert text("setosa") == text("setosa") != text("virginica")
    assert 0 <= text("\ud800") <= 0xFFFF


@pytest.mark.parametrize(
    "data",
    [
        np.empty((0, 3)),
        object_array([{"label": "a"}]),
        object_array([None]),
        np.array([["a", "b"]], object),
        np.array(["2026-01-01T00:00:00"], "datetime64[us]"),
    ],
    ids=["no rows", "an object", "nothing", "several texts", "a time"],
)
def test_what_cannot_be_compared_has_no_code(data):
    assert code(data) == NO_CODE
