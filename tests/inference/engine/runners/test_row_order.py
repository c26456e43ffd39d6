"""Test that each row's answer goes to the caller who sent the row."""

import numpy as np
import pandas
import pytest

from inference.engine.runners.pyfunc_outputs import to_tensors

XS = [3.0, 1.0, 2.0]
TABLE = pandas.DataFrame({"x": XS, "name": ["c", "a", "b"]})


def read(outputs, *, rows=3):
    return {t.name: t.data.tolist() for t in to_tensors(outputs, rows=rows)}


def split_and_joined(table):
    """Answer small and large values by models of their own, as people do."""
    return pandas.concat([table[table["x"] < 2.5], table[table["x"] >= 2.5]])


@pytest.mark.parametrize(
    "outputs",
    [
        TABLE.sort_values("x"),
        TABLE[::-1],
        split_and_joined(TABLE),
        TABLE.sort_values("x").set_axis(pandas.Index([1.0, 2.0, 0.0])),
        TABLE.sort_values("x").set_axis(pandas.Index([1, 2, 0], dtype=object)),
        TABLE.sort_values("x").set_axis(pandas.Index([1, 2, 0], dtype="Int64")),
    ],
)
def test_sorted_rows_are_put_back_by_their_labels(outputs):
    assert read(outputs) == {"x": XS, "name": ["c", "a", "b"]}
    assert read(outputs["x"]) == {"output": XS}
    assert read({"y": outputs["x"], "z": np.arange(3)}) == {"y": XS, "z": [0, 1, 2]}


@pytest.mark.parametrize(
    ("index", "shown"),
    [
        (pandas.Index(["c", "a", "b"]), "'c', 'a', 'b'"),
        (pandas.Index([0, 0, 1]), "0, 0, 1"),
        (pandas.Index([1, 2, 3]), "1, 2, 3"),
        (pandas.Index([0.0, 1.5, 2.0]), r"0\.0, 1\.5, 2\.0"),
        (pandas.Index([True, False, True]), "True, False, True"),
        (pandas.Index([0, 1, None], dtype=object), "0, 1, None"),
        (pandas.Index([0, 1, np.nan]), r"0\.0, 1\.0, nan"),
        (pandas.MultiIndex.from_tuples([(0, 1), (0, 2), (0, 3)]), r"\(0, 1\)"),
        (pandas.date_range("2024-01-01", periods=3), "2024-01-01 00:00:00, 2024"),
        (pandas.RangeIndex(0, 6, 2), "0, 2, 4"),
    ],
)
def test_labels_that_do_not_name_the_inputs_rows_are_refused(index, shown):
    table = TABLE.set_axis(index)

    for outputs in (table, table["x"], {"y": table["x"]}):
        with pytest.raises(ValueError, match=f"labelled its rows {shown}"):
            to_tensors(outputs, rows=3)


def test_one_row_with_a_label_of_its_own_is_refused_as_in_company():
    with pytest.raises(ValueError, match=r"labelled its rows 7 instead of 0 to 0"):
        to_tensors(pandas.Series([1.0], index=[7]), rows=1)


def test_only_the_first_labels_of_many_are_named():
    names = pandas.Index([f"customer {n}" for n in range(300)])

    with pytest.raises(ValueError, match="'customer 2', … instead") as refused:
        to_tensors(pandas.Series(np.zeros(300), index=names), rows=300)

    assert "customer 3" not in str(refused.value)
