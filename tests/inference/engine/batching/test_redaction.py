"""Test that values of rows do not stand in a model's error text."""

import numpy as np
import pytest

from inference.engine.batching import redaction
from inference.engine.wire.tensors import Tensor, object_array


def redacted(text, *columns):
    tensors = [Tensor(f"column {at}", data) for at, data in enumerate(columns)]
    return redaction.redacted(text, [tensors])


def texts(*values):
    return object_array(values)


@pytest.mark.parametrize(
    ("message", "value"),
    [
        ("could not convert string to float: 'Zürich'", "Zürich"),
        ("Found unknown categories ['f'] in column 2", "f"),
        ("bad date 2024-02-30", "2024-02-30"),
        ("no account for ada@example.org", "ada@example.org"),
        ("'My name is\\nAda' is too long", "My name is\nAda"),
        ("KeyError: 'diabetes'", "a history of diabetes, untreated"),
        ("unknown sign '?'", "?"),
    ],
)
def test_texts_of_rows_are_taken_out(message, value):
    said = redacted(message, texts("other", value, None))

    assert redaction.REDACTED in said
    for word in value.replace("\n", " ").split():
        assert len(word) == 1 or word not in said or word in ("a", "is", "of", "My")
    assert f"'{value}'" not in said


@pytest.mark.parametrize(
    ("message", "value"),
    [
        ("value 37.25 is out of range", 37.25),
        ("value 37.3 is out of range", 37.25),
        ("value 37 is out of range", 37.25),
        ("got 3.725e+01", 37.25),
        ("negative: -37.25", -37.25),
        ("overdrawn by 37.25", -37.25),
    ],
)
@pytest.mark.parametrize("dtype", [np.float64, np.float32, object])
def test_numbers_of_rows_are_taken_out_also_if_rounded(message, value, dtype):
    said = redacted(message, np.array([1e6, value], dtype))

    assert redaction.REDACTED in said
    assert "37" not in said
    assert "3.725" not in said


def test_other_words_and_numbers_stay():
    message = "X has 5 features, but LogisticRegression expects 30 features"

    assert redacted(message, np.array([[0.25, 100.0]]), texts("Zürich")) == message


def test_values_inside_objects_count():
    column = texts({"name": "Ada Lovelace", "ages": [36, 10**400]})

    assert redacted("Lovelace is 36", column) == "[…] is […]"


def test_moments_count():
    moments = np.array(["2024-02-29T12:30:00", "NaT"], "M8[ns]")

    for form in ("2024-02-29 12:30:00", "2024-02-29T12:30:00.000000000", "2024-02-29"):
        assert "29" not in redacted(f"no rate for {form}!", moments)


def test_a_long_value_is_taken_out_before_the_text_is_cut():
    document = "secret " * 1000

    said = redacted(f"cannot parse {document!r}", texts(document))

    assert "secret" not in said
    assert "cannot parse" in said
    assert len(said) <= redaction.MOST_MESSAGE


def test_a_text_without_end_is_not_searched():
    assert redacted("x" * 1_000_000, texts("y")) == "(a message of 1000000 characters)"
