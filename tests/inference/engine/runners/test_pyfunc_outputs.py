import datetime
import math
from decimal import Decimal

import numpy as np
import pandas
import pytest
import torch
from scipy import sparse

from inference.engine.runners.pyfunc_outputs import plain, to_tensors
from inference.engine.wire import tensors


def read(outputs, *, rows, names=()):
    return {
        tensor.name: tensor.data.tolist()
        for tensor in to_tensors(outputs, rows=rows, names=names)
    }


@pytest.mark.parametrize(
    ("outputs", "expected"),
    [
        (np.array([1.5, 2]), {"output": [1.5, 2.0]}),
        ([1, 2], {"output": [1, 2]}),
        (["a", "b"], {"output": ["a", "b"]}),
        (np.array(["a", "b"]), {"output": ["a", "b"]}),
        ([["a"], ["b", "c"]], {"output": [["a"], ["b", "c"]]}),
        ([1.5, None], {"output": [1.5, None]}),
        (pandas.Series(["a", None]), {"output": ["a", None]}),
        (pandas.Series([1, None], dtype=object), {"output": [1, None]}),
        (pandas.Series(["a", "b"], dtype="category"), {"output": ["a", "b"]}),
        (torch.ones(2, 1), {"output": [[1.0], [1.0]]}),
        (torch.ones(2, dtype=torch.bfloat16), {"output": [1.0, 1.0]}),
        (sparse.eye(2).tocsr(), {"output": [[1.0, 0.0], [0.0, 1.0]]}),
        (
            pandas.DataFrame({"x": [1, 2], "y": ["b", None]}),
            {"x": [1, 2], "y": ["b", None]},
        ),
        ({"x": np.array([1, 2]), "y": ["b", "c"]}, {"x": [1, 2], "y": ["b", "c"]}),
        ([{"x": 1}, {"y": [2]}], {"output": [{"x": 1}, {"y": [2]}]}),
        (
            [{"label": "a", "score": 0.5}, {"label": "b", "score": 1}],
            {"label": ["a", "b"], "score": [0.5, 1.0]},
        ),
        (
            pandas.Series(pandas.to_datetime(["2024-01-02", None])),
            {"output": ["2024-01-02T00:00:00", None]},
        ),
    ],
)
def test_outputs_become_named_tensors(outputs, expected):
    found = read(outputs, rows=2)

    for name, values in found.items():
        if values and isinstance(values[0], str) and "T" in values[0]:
            found[name] = [v and v.split(".")[0] for v in values]
    assert found == expected
    for tensor in to_tensors(outputs, rows=2):
        tensors.encode(tensor)


def test_members_that_the_signature_names_are_outputs_of_their_own():
    outputs = [{"x": 1, "y": "b"}, {"x": 2, "y": "c"}]

    assert read(outputs, rows=2) == {"output": outputs}
    assert read(outputs, rows=2, names=("x", "y")) == {"x": [1, 2], "y": ["b", "c"]}


def test_lists_of_text_are_values_whatever_their_lengths():
    (one,) = to_tensors([["a"]], rows=1)
    (two,) = to_tensors([["a"], ["b", "c"]], rows=2)

    assert one.data.shape == (1,)
    assert one.data[0] == two.data[0] == ["a"]


def test_one_object_for_one_row_is_its_prediction():
    assert read({"choices": [{"text": "a"}, {"text": "b"}]}, rows=1) == {
        "output": [{"choices": [{"text": "a"}, {"text": "b"}]}]
    }
    assert read("a text", rows=1) == {"output": ["a text"]}
    with pytest.raises(ValueError, match="one object for 2 rows"):
        to_tensors({"text": "a"}, rows=2)


def test_values_become_what_json_can_say():
    value = {
        "when": datetime.datetime(2024, 1, 2, tzinfo=datetime.UTC),
        "never": pandas.NaT,
        "nothing": pandas.NA,
        "array": np.array([1, 2], dtype=np.int8),
        "number": np.float32(0.5),
        "bytes": b"abc",
        3: {True},
    }

    assert plain(value) == {
        "when": "2024-01-02T00:00:00+00:00",
        "never": None,
        "nothing": None,
        "array": [1, 2],
        "number": 0.5,
        "bytes": "YWJj",
        "3": [True],
    }


def test_outputs_that_cannot_cross_are_refused():
    for outputs in ([object()], [Decimal(1)], np.array([1j]), [lambda: 1]):
        with pytest.raises(ValueError, match="cannot be sent"):
            to_tensors(outputs, rows=1)


def test_nesting_without_end_is_refused():
    nested = []
    nested.append(nested)

    with pytest.raises(ValueError, match="too deeply"):
        to_tensors([{"a": nested}], rows=1)


@pytest.mark.parametrize(
    "mixed",
    [
        ["a", 1],
        [1, "a", 2.5, True],
        [True, 2],
        [True, 2.5],
        [2**53 + 1, 0.5],
        [["a", 1], [2, 3]],
        [("a", 1), ("b", 2.5)],
        [[True], [2]],
        [[True, 2], [1, 3]],
        [[2**53 + 1, 1], [2, 3]],
        [np.int64(2**53 + 1), 2**63],
        [[2**63], [-1]],
        [np.datetime64("2026-01-02"), np.datetime64("2026-01-02T03")],
    ],
)
def test_what_a_row_is_answered_does_not_depend_on_the_rows_beside_it(mixed):
    (together,) = to_tensors(mixed, rows=len(mixed))
    alone = [to_tensors([item], rows=1)[0].data.tolist()[0] for item in mixed]

    assert together.data.tolist() == alone
    for one, other in zip(together.data.tolist(), alone, strict=True):
        assert repr(one) == repr(other)


@pytest.mark.parametrize(
    ("outputs", "expected"),
    [
        ([[2**53 + 1, 1], [0.5, 2]], [[2**53 + 1, 1], [0.5, 2]]),
        ([np.int64(2**53 + 1), 0.5], [2**53 + 1, 0.5]),
        ([np.array([2**53 + 1]), np.array([0.5])], [[2**53 + 1], [0.5]]),
        (pandas.Series([2**53 + 1, None], dtype="Int64"), [2**53 + 1, None]),
        ([[True, 2], [1, 0.5]], [[True, 2], [1, 0.5]]),
    ],
)
def test_numbers_keep_their_digits_beside_others(outputs, expected):
    found = read(outputs, rows=2)["output"]

    assert repr(found) == repr(expected)


@pytest.mark.parametrize(
    ("outputs", "expected"),
    [
        ([b"\x01\x00", b"\x00\x00\x00"], ["AQA=", "AAAA"]),
        ([[b"\x01\x00"], [b"a"]], [["AQA="], ["YQ=="]]),
        (["a\0", "b"], ["a\0", "b"]),
        ({"output": (b"\x01\x00", b"\x00")}, ["AQA=", "AA=="]),
    ],
)
def test_texts_and_bytes_may_end_in_zeros(outputs, expected):
    assert read(outputs, rows=2) == {"output": expected}


def test_numbers_that_are_not_finite_are_told_apart_from_missing_values():
    """Answers warn of NaN inside a value; a NaN alone is pandas' missing value."""
    inner = {"score": math.nan, "bounds": [-math.inf, np.float32("nan")]}

    kept = plain({"a": inner})["a"]

    assert math.isnan(kept["score"])
    assert kept["bounds"][0] == -math.inf
    assert math.isnan(kept["bounds"][1])
    assert read(pandas.Series(["a", np.nan], dtype=object), rows=2) == {
        "output": ["a", None]
    }
    assert plain(math.inf) == math.inf
