"""Test models of several libraries, written by MLflow and loaded as by an engine."""

import json
import warnings

import numpy as np
import pandas
import pytest

from inference.engine.runners import runner
from inference.engine.runners.runner import StreamRunner
from inference.engine.wire.errors import EngineError
from inference.engine.wire.tensors import Tensor, object_array
from tests.inference.engine.runners import logged

with warnings.catch_warnings():
    # MLflow warns while it is imported.
    warnings.simplefilter("ignore")
    from tests.inference.engine.runners import python_models

pytestmark = pytest.mark.filterwarnings("ignore")


def save_sklearn(folder, model, data, **options):
    import mlflow.sklearn
    from mlflow.models import infer_signature

    mlflow.sklearn.save_model(
        model,
        str(folder),
        signature=infer_signature(data, model.predict(data)),
        serialization_format="cloudpickle",
        pip_requirements=[],
        **options,
    )


PEOPLE = pandas.DataFrame(
    {
        "age": [31.0, None, 52.0, 40.0],
        "city": ["Bern", "Oslo", None, "Bern"],
        "visits": [1, 2, 3, 4],
        "member": [True, False, True, True],
    }
)


@pytest.fixture(scope="module")
def boosted(tmp_path_factory):
    """Return boosted trees after a preprocessing of columns, some of them optional."""
    from sklearn.compose import make_column_transformer
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder

    folder = tmp_path_factory.mktemp("sklearn") / "boosted"
    prepare = make_column_transformer(
        (OneHotEncoder(sparse_output=False, handle_unknown="ignore"), ["city"]),
        remainder="passthrough",
    )
    model = make_pipeline(prepare, HistGradientBoostingClassifier(min_samples_leaf=1))
    model.fit(PEOPLE, ["no", "no", "yes", "yes"])
    save_sklearn(folder, model, PEOPLE, input_example=PEOPLE.iloc[:2])
    return folder


def people(**columns):
    made = {
        name: object_array(values)
        if isinstance(values[0], (str, type(None)))
        else np.array(values)
        for name, values in columns.items()
    }
    return tuple(Tensor(name, values) for name, values in made.items())


def test_boosted_trees_answer_mixed_tables_with_gaps(boosted):
    version = logged.version(boosted)

    loaded = runner.load(version, "cpu")
    assert not loaded.apart
    (output,) = loaded.runner.run(
        people(
            age=[31.0, np.nan],
            city=["Bern", None],
            visits=[1, 4],
            member=[True, False],
        )
    )

    columns = {column.name: column for column in loaded.signature.columns}
    assert not columns["age"].required
    assert not columns["city"].required
    assert set(output.data.tolist()) <= {"no", "yes"}


def test_optional_columns_may_be_left_out(boosted):
    loaded = runner.load(logged.version(boosted), "cpu")
    whole = people(age=[np.nan], city=[None], visits=[2], member=[False])

    (output,) = loaded.runner.run(whole[2:])

    assert output.data.tolist() == loaded.runner.run(whole)[0].data.tolist()


def test_logged_outputs_are_compared_for_tables_too(boosted, tmp_path):
    import shutil

    folder = tmp_path / "copy"
    shutil.copytree(boosted, folder)
    (folder / "answers.json").write_text(json.dumps(["no", "no"]))
    version = logged.version(folder, metadata={"example_outputs": "answers.json"})
    runner.load(version, "cpu")

    (folder / "answers.json").write_text(json.dumps(["no", "yes"]))

    with pytest.raises(EngineError, match="does not reproduce"):
        runner.load(version, "cpu")


def test_a_file_of_outputs_that_is_missing_fails_the_version(boosted):
    version = logged.version(boosted, metadata={"example_outputs": "gone.npy"})

    with pytest.raises(EngineError, match=r"no file gone\.npy"):
        runner.load(version, "cpu")


def test_columns_whose_labels_are_numbers_have_these_as_names(tmp_path):
    from sklearn.linear_model import LinearRegression

    rows = pandas.DataFrame(
        {2: [0.0, 1.0, 2.0], 0: [1.0, 0.0, 5.0], 1: [7.0, 3.0, 1.0]}
    )
    model = LinearRegression().fit(rows, [1.0, 2.0, 3.0])
    save_sklearn(tmp_path / "labels", model, rows, input_example=rows)

    loaded = runner.load(logged.version(tmp_path / "labels"), "cpu")
    (output,) = loaded.runner.run(
        tuple(Tensor(str(label), rows[label].to_numpy()) for label in (0, 1, 2))
    )

    assert [column.name for column in loaded.signature.columns] == ["2", "0", "1"]
    assert output.data.tolist() == model.predict(rows).tolist()


@pytest.fixture(scope="module")
def writer(tmp_path_factory):
    from mlflow.models import infer_signature

    folder = tmp_path_factory.mktemp("pyfunc") / "writer"
    data = pandas.DataFrame({"text": ["a", "b"]})
    logged.save_pyfunc(
        folder,
        python_models.Writer(),
        signature=infer_signature(
            data, [{"text": "a"}], params={"times": 2, "between": " "}
        ),
        input_example=(data, {"times": 1, "between": "-"}),
    )
    return folder


def test_parameters_are_at_their_defaults_or_as_given(writer):
    model = runner.load(logged.version(writer), "cpu").runner
    text = (Tensor("text", object_array(["a", "b"])),)

    (default,) = model.run(text)
    (given,) = model.run_with(text, {"times": 3})

    assert default.data.tolist() == ["a a", "b b"]
    assert given.data.tolist() == ["a a a", "b b b"]


def test_models_with_predict_stream_stream(writer):
    model = runner.load(logged.version(writer), "cpu").runner
    text = (Tensor("text", object_array(["a"])),)

    assert isinstance(model, StreamRunner)
    assert list(model.stream(text, {"times": 2})) == [
        {"index": 0, "text": "a"},
        {"index": 1, "text": "a"},
    ]


def test_models_that_only_stream_load_and_are_closed(tmp_path):
    from mlflow.models import infer_signature

    data = pandas.DataFrame({"text": ["abc"]})
    logged.save_pyfunc(
        tmp_path / "m", python_models.OnlyStreams(), signature=infer_signature(data)
    )
    (tmp_path / "m" / "serving_input_example.json").write_text(
        '{"dataframe_split": {"columns": ["text"], "data": [["xyz"]]}}'
    )
    model = runner.load(logged.version(tmp_path / "m"), "cpu").runner

    chunks = model.stream((Tensor("text", object_array(["abc"])),), None)
    assert next(chunks) == "a"
    chunks.close()

    assert list(model.stream((Tensor("text", object_array(["no"])),), None)) == [
        "n",
        "o",
    ]


def test_typed_models_take_text_and_answer_with_objects(tmp_path):
    logged.save_pyfunc(tmp_path / "m", python_models.Chat(), input_example=["a b", "c"])

    loaded = runner.load(logged.version(tmp_path / "m"), "cpu")
    (output,) = loaded.runner.run((Tensor("input", object_array(["x y z"])),))

    assert not isinstance(loaded.runner, StreamRunner)
    assert output.data.tolist() == [{"words": ["x", "y", "z"], "first": "x"}]


def test_moments_bytes_and_nested_columns_arrive(tmp_path):
    from mlflow.models import infer_signature

    data = pandas.DataFrame(
        {
            "when": pandas.to_datetime(["2024-02-29T12:00:00"]),
            "raw": [b"abc"],
            "tags": [["a", "b"]],
            "profile": [{"name": "Ada"}],
        }
    )
    logged.save_pyfunc(
        tmp_path / "m",
        python_models.Everything(),
        signature=infer_signature(data),
        input_example=data,
    )

    loaded = runner.load(logged.version(tmp_path / "m"), "cpu")
    (output,) = loaded.runner.run(
        (
            Tensor("when", np.array(["2025-01-01"], dtype="datetime64[ns]")),
            Tensor("raw", object_array([b"xyz"])),
            Tensor("tags", object_array([["c"]])),
            Tensor("profile", object_array([{"name": "Bob"}])),
        )
    )

    (answer,) = output.data.tolist()
    assert answer.pop("types")["when"] == "datetime64[ns]"
    assert answer == {"year": 2025, "bytes": "xyz", "tags": ["c"], "name": "Bob"}


def test_embeddings_are_scaled_where_the_metadata_asks_for_it(tmp_path):
    from mlflow.models import infer_signature

    data = pandas.DataFrame({"text": ["a", "bb"]})
    logged.save_pyfunc(
        tmp_path / "m",
        python_models.Vectors(),
        signature=infer_signature(data),
        input_example=data,
    )
    metadata = {"task": "embedding", "normalize": True}

    loaded = runner.load(logged.version(tmp_path / "m", metadata=metadata), "cpu")
    (output,) = loaded.runner.run((Tensor("text", object_array(["abc"])),))

    assert output.data == pytest.approx(np.array([[3.0, 1.0]]) / 10**0.5)


def test_several_tensors_arrive_by_name(tmp_path):
    from mlflow.models import infer_signature

    data = {"a": np.ones((2, 3), np.float32), "b": np.ones((2, 1), np.int64)}
    logged.save_pyfunc(
        tmp_path / "m",
        python_models.Sums(),
        signature=infer_signature(data),
        input_example=data,
    )

    loaded = runner.load(logged.version(tmp_path / "m"), "cpu")
    outputs = loaded.runner.run(
        (Tensor("a", data["a"][:1] * 2), Tensor("b", data["b"][:1]))
    )

    assert {one.name: one.data.tolist() for one in outputs} == {"a": [6.0], "b": [1]}
