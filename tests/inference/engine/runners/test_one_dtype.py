"""Test that a column's dtype never depends on the values or callers in a batch."""

import json

import numpy as np
import pandas
import pytest

from inference.codecs.decoding import InstanceDecoder
from inference.engine.runners import runner
from inference.engine.runners.pyfunc_inputs import InputMaker
from inference.engine.signatures import example
from inference.engine.signatures.mlflow_signature import from_mlflow
from inference.engine.signatures.signature import Column, Layout, Signature, with_rules
from inference.engine.wire.tensors import Tensor
from inference.errors.api_error import ApiError
from tests.inference.engine.runners import logged

pytestmark = pytest.mark.filterwarnings("ignore")

COLUMNS = [("string", "city"), ("long", "count"), ("boolean", "member"), ("any", "tag")]
# Values of a column of each dtype, as they come from JSON.
VALUES = {
    "str": ["a", "", None, "NaN"],
    "bytes": ["YQ==", None],
    "json": ["a", 1, 2.5, True, None, ["a"], {"b": [None]}],
    "bool": [True, False, None],
    "int8": [1, -1, None],
    "int64": [1, 2**53, None],
    "uint32": [1, None],
    "float32": [0.5, 1, None],
    "float64": [0.1, 2, None],
    "datetime64[ns]": ["2024-01-02", "2024-01-02T03:04:05.678901Z", None],
}
EVERY_COLUMN = Signature(
    layout=Layout.TABLE,
    columns=tuple(Column(name, dtype=name, required=False) for name in VALUES),
)
ROWS = [
    {"city": "Oslo", "count": 1, "member": True, "tag": "a"},
    {"city": None, "count": None, "member": None, "tag": None},
    {},
    {"city": "Oslo", "count": 2, "member": False, "tag": [1]},
]


class Served:
    """A saved model, called with JSON in the way of the gateway and the engine."""

    def __init__(self, folder):
        version = logged.version(folder)
        self.signature = from_mlflow(
            {"inputs": json.loads(_signature(folder)["inputs"])}
        )
        self._runner = runner.load(version, "cpu").runner

    def ask(self, *rows):
        body = json.dumps({"instances": rows}).encode()
        decoded = InstanceDecoder(self.signature).decode_request(body)
        (output,) = runner.run(self._runner, decoded.tensors, None)
        return output.data.tolist()


def _signature(folder):
    import yaml

    return yaml.safe_load((folder / "MLmodel").read_text())["signature"]


def schema(columns):
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema
    from mlflow.types.schema import AnyType

    kinds = {"any": AnyType()}
    specs = [ColSpec(kinds.get(kind, kind), n, required=False) for kind, n in columns]
    return ModelSignature(inputs=Schema(specs))


@pytest.fixture(scope="module")
def teller(tmp_path_factory):
    """A Python model that returns the dtypes of its input."""

    def tell(model_input):
        dtypes = [str(dtype) for dtype in model_input.dtypes]
        return [{"dtypes": dtypes}] * len(model_input)

    folder = tmp_path_factory.mktemp("models") / "teller"
    logged.save_pyfunc(folder, tell, signature=schema(COLUMNS))
    return Served(folder)


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    """Return a scikit-learn pipeline that was trained with missing cities."""
    import mlflow.sklearn
    from sklearn.compose import make_column_transformer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder
    from sklearn.tree import DecisionTreeRegressor

    rows = pandas.DataFrame({"city": ["Oslo", "Bergen", None], "count": [1, 2, None]})
    encode = make_column_transformer(
        (OneHotEncoder(handle_unknown="ignore"), ["city"]), remainder="passthrough"
    )
    model = make_pipeline(encode, DecisionTreeRegressor()).fit(rows, [10, 50, 99])
    folder = tmp_path_factory.mktemp("models") / "pipeline"
    mlflow.sklearn.save_model(
        model,
        folder,
        signature=schema(COLUMNS[:2]),
        serialization_format="cloudpickle",
        pip_requirements=[],
    )
    return Served(folder)


@pytest.mark.parametrize("row", ROWS)
def test_a_row_alone_gets_the_dtypes_that_it_gets_in_company(teller, row):
    whole = pandas.DataFrame({"city": ["Oslo", None], "count": [1, None]})
    trained = [str(dtype) for dtype in whole.dtypes]

    assert teller.ask(row) == [{"dtypes": [*trained, "object", "object"]}]
    assert teller.ask(row, *ROWS)[0] == teller.ask(row)[0]


def test_whatever_stands_beside_a_row_changes_neither_dtype_nor_value():
    maker = InputMaker(EVERY_COLUMN)
    random = np.random.default_rng(0)
    rows = [
        {name: values[random.integers(len(values))] for name, values in VALUES.items()}
        for _ in range(200)
    ]
    rows += [dict.fromkeys(VALUES), {}]
    alone = [maker.make(tensors_of([row])) for row in rows]

    together = maker.make(tensors_of(rows))

    for place, frame in enumerate(alone):
        assert frame.dtypes.tolist() == together.dtypes.tolist()
        one = together.iloc[place : place + 1].reset_index(drop=True)
        pandas.testing.assert_frame_equal(frame, one)
        for name in VALUES:
            assert type(frame[name][0]) is type(together[name][place])


def tensors_of(rows):
    return tuple(
        Tensor(
            column.name,
            example.column_array(
                [row.get(column.name) for row in rows], column.carrier
            ),
        )
        for column in EVERY_COLUMN.columns
    )


def test_a_missing_text_is_answered_alone_as_it_was_learnt(pipeline):
    missing, oslo = {"city": None, "count": None}, {"city": "Oslo", "count": 1}

    assert pipeline.ask(missing) == pipeline.ask({}) == [99]
    assert pipeline.ask(oslo, missing) == [10, 99]


def test_a_whole_number_that_floats_would_change_is_refused(teller):
    decoder = InstanceDecoder(teller.signature)
    rows = [{"count": 2**53}, {"count": None}, {"count": -(2**53) - 1}]

    with pytest.raises(ApiError) as refused:
        decoder.decode_request(json.dumps({"instances": rows}).encode())

    assert refused.value.status == 400
    assert [(p.index, p.field) for p in refused.value.details] == [(2, "count")]
    assert len(decoder.decode_rows(rows[:2]).indexes) == 2


def test_a_route_that_requires_a_value_changes_no_dtype(teller):
    required = with_rules(teller.signature, {"count": {"optional": False}})
    decoder = InstanceDecoder(required)
    count = decoder.decode_rows([{"count": 3}]).tensors[1].data

    assert count.dtype == np.float64
    assert decoder.decode_rows([{"count": None}]).problems
    assert decoder.decode_rows([{"count": 2**53 + 1}]).problems


def _number_of(x):
    return None if x == 9 else int(x) if x == int(x) else x


def give_list(model_input):
    return [_number_of(x) for x in model_input["x"]]


def give_table(model_input):
    return pandas.DataFrame({"y": give_list(model_input)})


def give_vectors(model_input):
    return [[0 if y is None else y, 1] for y in give_list(model_input)]


@pytest.mark.parametrize(
    ("give", "told"),
    [
        (give_list, [0.5, 1.5]),
        (give_table, pandas.DataFrame({"y": [0.5, 1.5]})),
        (give_vectors, [[0.5, 1.5]]),
    ],
)
def test_outputs_declared_as_floats_are_floats_in_any_company(tmp_path, give, told):
    from mlflow.models import infer_signature

    signature = infer_signature(pandas.DataFrame({"x": [0.5, 1.5]}), told)
    logged.save_pyfunc(tmp_path / "m", give, signature=signature)
    loaded = runner.load(logged.version(tmp_path / "m"), "cpu").runner

    def outputs(*xs):
        tensors = (Tensor("x", np.array(xs, "float64")),)
        return {t.name: t.data for t in runner.run(loaded, tensors, None)}

    together = outputs(0.5, 2.0, 9.0)
    for index, x in enumerate((0.5, 2.0, 9.0)):
        alone = outputs(x)
        assert alone.keys() == together.keys()
        for name, data in alone.items():
            assert data.dtype == together[name].dtype
            np.testing.assert_array_equal(data[0], together[name][index])
        assert data.dtype == np.float64


def give_text(model_input):
    return [np.nan if x == 9 else f"x{x:g}" for x in model_input["x"]]


def give_text_table(model_input):
    return pandas.DataFrame({"y": give_text(model_input)})


def give_count(model_input):
    return pandas.Series(give_list(model_input))


@pytest.mark.parametrize(
    ("give", "told", "expected"),
    [
        (give_text, ["a", "b"], ["x1", None, "x2"]),
        (give_text_table, pandas.DataFrame({"y": ["a", "b"]}), ["x1", None, "x2"]),
        (give_count, pandas.Series([1, 2]), [1, None, 2]),
    ],
)
def test_missing_outputs_change_no_other_answer(tmp_path, give, told, expected):
    from mlflow.models import infer_signature

    signature = infer_signature(pandas.DataFrame({"x": [0.5, 1.5]}), told)
    logged.save_pyfunc(tmp_path / "m", give, signature=signature)
    loaded = runner.load(logged.version(tmp_path / "m"), "cpu").runner

    def answers(*xs):
        (output,) = loaded.run((Tensor("x", np.array(xs, "float64")),))
        return output.data.tolist()

    together = answers(1.0, 9.0, 2.0)

    assert together == expected
    alone = [answers(x)[0] for x in (1.0, 9.0, 2.0)]
    assert [*map(repr, alone)] == [*map(repr, together)]
