from typing import Any

import jsonschema
import pytest

from inference.api.openapi.schemas import instance_schema, prediction_schema
from inference.codecs.decoding import InstanceDecoder
from inference.engine.signatures.signature import Column, Layout, Signature, Task
from inference.errors.api_error import ApiError

TABLE = Signature(
    layout=Layout.TABLE,
    columns=(
        Column("age", "int32", minimum=0, maximum=130),
        Column("income", "float64", minimum=0.5),
        Column("city", "str", max_length=5),
        Column("plan", "str", enum=("basic", "pro")),
        Column("active", "bool"),
        Column("note", "str", required=False),
    ),
)
GOOD = {"age": 40, "income": 9.5, "city": "Rome", "plan": "pro", "active": True}


def _decoder_accepts(signature: Signature, instance: Any) -> bool:
    try:
        rows = InstanceDecoder(signature).decode_rows([instance])
    except ApiError:
        return False
    return not rows.problems


def _schema_accepts(signature: Signature, instance: Any) -> bool:
    validator = jsonschema.Draft202012Validator(instance_schema(signature))
    return validator.is_valid(instance)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"note": "hello"},
        {"note": None},
        {"age": 131},
        {"age": -1},
        {"age": "40"},
        {"age": 2.5},
        {"income": 0.4},
        {"income": 3},
        {"city": "Madrid"},
        {"city": None},
        {"plan": "free"},
        {"active": 1},
        {"surprise": 1},
    ],
    ids=str,
)
def test_the_schema_accepts_exactly_what_the_decoder_accepts(changes):
    instance = {**GOOD, **changes}

    described = _schema_accepts(TABLE, instance)

    assert described == _decoder_accepts(TABLE, instance)


def test_a_missing_column_is_refused_by_both():
    instance = {name: value for name, value in GOOD.items() if name != "age"}

    assert not _schema_accepts(TABLE, instance)
    assert not _decoder_accepts(TABLE, instance)


@pytest.mark.parametrize(
    "instance", [[[1.0, 2.0]], [[1.0]], [1.0, 2.0], [[1.0, "2"]], []], ids=str
)
def test_a_tensor_has_exactly_its_shape(instance):
    signature = Signature(layout=Layout.TENSOR, dtype="float32", shape=(1, 2))

    described = _schema_accepts(signature, instance)

    assert described == _decoder_accepts(signature, instance)


def test_a_classification_names_its_labels():
    signature = Signature(
        layout=Layout.TENSOR, task=Task.CLASSIFICATION, labels=("cat", "dog")
    )

    schema = prediction_schema(signature)

    assert schema["properties"]["label"]["enum"] == ["cat", "dog"]
