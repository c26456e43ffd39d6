"""How far apart two versions' answers are."""

import math

import pytest

from inference.codecs.answers import ClassPrediction
from inference.codecs.differences import compare


def label(name, score):
    return ClassPrediction(name, score, False)


@pytest.mark.parametrize(
    ("one", "other", "changed", "distance"),
    [
        (label("a", 0.9), label("a", 0.7), 0, 0.2),
        (label("a", 0.9), label("b", 0.9), 1, 1.0),
        (label("a", None), label("a", None), 0, 0.0),
        (label("a", 0.5), label("a", None), 0, 1.0),
        (100.0, 100.5, 0, 0.5 / 100.5),
        (100.0, 102.0, 1, 2 / 102),
        (0.0, 0.0, 0, 0.0),
        (0, 1e-9, 1, 1.0),
        (1.0, -1.0, 1, 1.0),
        (None, None, 0, 0.0),
        (None, 1.0, 1, 1.0),
        ([3.0, 4.0], [3.0, 4.0], 0, 0.0),
        ([3.0, 4.0], [3.0, 0.0], 1, 4 / 5),
        ([1.0], [1.0, 2.0], 1, 1.0),
        (["x", 1.0], ["x", 1.0], 0, 0.0),
        ({"a": 1.0, "b": "x"}, {"a": 1.0, "b": "x"}, 0, 0.0),
        ({"a": 1.0}, {"b": 1.0}, 1, 1.0),
        ("yes", "no", 1, 1.0),
        (True, False, 1, 1.0),
        (math.inf, 1.0, 1, 1.0),
    ],
)
def test_answers_differ_as_callers_read_them(one, other, changed, distance):
    found = compare([one], [other], tolerance=0.01)

    assert (found.changed_rows, found.distance) == (changed, pytest.approx(distance))


def test_rows_are_added_up():
    found = compare([1.0, 2.0, 3.0], [1.0, 2.0, 6.0], tolerance=0.01)

    assert (found.changed_rows, found.distance) == (1, 0.5)


def test_answers_to_other_rows_are_not_compared():
    with pytest.raises(ValueError, match="zip"):
        compare([1.0], [1.0, 2.0], tolerance=0.01)
