"""Test requests with real models of many kinds, from the body to the predictions."""

import json
import warnings

import numpy as np
import pandas
import pytest

from inference.codecs.answers import AnswerEncoder
from inference.codecs.decoding import InstanceDecoder
from inference.engine.runners import runner
from inference.engine.signatures import checks
from inference.engine.wire.errors import EngineError
from tests.inference.engine.runners import logged

with warnings.catch_warnings():
    # MLflow warns while it is imported.
    warnings.simplefilter("ignore")
    from mlflow.models import infer_signature

    from tests.inference.engine.runners import python_models

pytestmark = pytest.mark.filterwarnings("ignore")


def answer(folder, instances, *, metadata=None, parameters=None):
    """Decode a body, run the model as the engine does, and return the predictions."""
    loaded = runner.load(logged.version(folder, metadata=metadata), "cpu")
    assert not loaded.apart
    signature = loaded.signature
    body = {"instances": instances}
    if parameters is not None:
        body["parameters"] = parameters
    decoded = InstanceDecoder(signature).decode_request(json.dumps(body).encode())
    checks.check_layout(signature, decoded.tensors)
    checks.check_params(signature, decoded.params)
    outputs = runner.run(loaded.runner, decoded.tensors, decoded.params)
    runner.check_outputs(outputs, decoded.rows)
    return AnswerEncoder(signature).predictions(outputs)


def save(folder, model, data, **options):
    logged.save_pyfunc(
        folder, model, signature=infer_signature(data), input_example=data, **options
    )
    return folder


def test_moments_bytes_and_nested_values(tmp_path):
    data = pandas.DataFrame(
        {
            "when": pandas.to_datetime(["2024-02-29T12:00:00"]),
            "raw": [b"abc"],
            "tags": [["a", "b"]],
            "profile": [{"name": "Ada"}],
        }
    )
    folder = save(tmp_path / "m", python_models.Everything(), data)

    (given,) = answer(
        folder,
        [
            {
                "when": "2025-01-01T01:00:00+02:00",
                "raw": "eHl6",
                "tags": ["c"],
                "profile": {"name": "Bob"},
            }
        ],
    )

    assert given.pop("types")["when"] == "datetime64[ns]"
    assert given == {"year": 2024, "bytes": "xyz", "tags": ["c"], "name": "Bob"}


@pytest.mark.parametrize("rows", [1, 3])
def test_columns_with_gaps(tmp_path, rows):
    data = pandas.DataFrame(
        {
            "text": ["a", None],
            "count": [1.5, None],
            "member": [True, None],
            "when": [pandas.Timestamp("2024-01-01"), pandas.NaT],
        }
    )
    folder = save(tmp_path / "m", python_models.Gaps(), data)

    given = answer(folder, [{"text": "x", "count": 2, "member": False}, {}][:rows])

    assert given[0] == ["when"]
    assert given[1:] in ([], [["text", "count", "member", "when"]])


def test_several_tensors(tmp_path):
    data = {"a": np.ones((2, 3), np.float32), "b": np.ones((2, 1), np.int64)}
    folder = save(tmp_path / "m", python_models.Sums(), data)

    given = answer(folder, [{"a": [1, 2, 3], "b": [4]}, {"b": [5], "a": [0, 0, 1]}])

    assert given == [{"a": 6.0, "b": 4}, {"a": 1.0, "b": 5}]


def test_typed_text(tmp_path):
    logged.save_pyfunc(tmp_path / "m", python_models.Chat(), input_example=["a b", "c"])

    given = answer(tmp_path / "m", ["x y"])

    assert given == [{"words": ["x", "y"], "first": "x"}]


def test_parameters(tmp_path):
    data = pandas.DataFrame({"text": ["a", "b"]})
    logged.save_pyfunc(
        tmp_path / "m",
        python_models.Writer(),
        signature=infer_signature(data, params={"times": 2, "between": " "}),
    )

    given = answer(tmp_path / "m", [{"text": "z"}], parameters={"between": "+"})

    assert given == [{"text": "z+z"}]


def sort_by_size(model_input):
    return model_input.sort_values("size")


def label_by_name(model_input):
    return model_input.set_index("name")


def drop_small(model_input):
    return model_input[model_input["size"] > 2]


def rank_sizes(model_input):
    return model_input["size"].rank()


PARCELS = pandas.DataFrame({"name": ["c", "a", "b"], "size": [3.0, 1.0, 2.0]})


def test_a_table_that_was_sorted_is_answered_in_the_order_of_its_rows(tmp_path):
    rows = PARCELS.to_dict("records")

    assert answer(save(tmp_path / "m", sort_by_size, PARCELS), rows) == rows


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (label_by_name, "labelled its rows 'c', 'a', 'b' instead of 0 to 2"),
        (drop_small, "gave 1 rows for 3 rows"),
    ],
)
def test_rows_of_which_nobody_knows_whose_they_are_are_refused(tmp_path, model, reason):
    folder = save(tmp_path / "m", model, PARCELS)

    with pytest.raises(EngineError, match=reason):
        runner.load(logged.version(folder), "cpu")


def test_a_ranking_loads_and_shares_no_batches(tmp_path):
    loaded = runner.load(
        logged.version(save(tmp_path / "m", rank_sizes, PARCELS)), "cpu"
    )

    assert loaded.apart == (
        "The answer to a row depends on the other rows: row 1 of its example alone "
        "gives 1, in a batch 4."
    )
