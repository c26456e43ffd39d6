import pytest

from inference.engine.signatures.mlflow_signature import from_mlflow
from inference.engine.signatures.signature import (
    Column,
    Image,
    Layout,
    Param,
    TensorInput,
    UnsupportedSignature,
)


def tensor(shape, dtype="float32", name=None):
    spec = {"type": "tensor", "tensor-spec": {"dtype": dtype, "shape": shape}}
    return spec if name is None else spec | {"name": name}


def read(*inputs, metadata=None, **parts):
    return from_mlflow({"inputs": list(inputs), **parts}, metadata)


def test_several_tensors_keep_their_names_and_open_lengths():
    signature = read(
        tensor([-1, -1], "int64", "input_ids"), tensor([-1, 3], name="extra")
    )

    assert signature.layout is Layout.TENSORS
    assert signature.inputs == (
        TensorInput("input_ids", "int64", (-1,)),
        TensorInput("extra", "float32", (3,)),
    )


def test_a_single_tensor_may_vary_in_its_other_sizes():
    signature = read(tensor([-1, -1, 4]))

    assert (signature.layout, signature.shape) == (Layout.TENSOR, (-1, 4))
    assert signature.inputs == (TensorInput("input", "float32", (-1, 4)),)


def test_named_columns_of_a_tensor_are_a_matrix():
    signature = read(tensor([-1, 2]), metadata={"columns": ["a", "b"]})

    assert signature.layout is Layout.MATRIX
    assert [column.name for column in signature.columns] == ["a", "b"]


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [
        ("boolean", "bool"),
        ("integer", "int32"),
        ("long", "int64"),
        ("float", "float32"),
        ("double", "float64"),
        ("string", "str"),
        ("binary", "bytes"),
        ("datetime", "datetime64[ns]"),
        ("any", "json"),
    ],
)
def test_each_column_type_has_a_dtype(kind, dtype):
    (column,) = read({"type": kind, "name": "a", "required": False}).columns

    assert (column.name, column.dtype, column.required) == ("a", dtype, False)


def test_nested_columns_say_in_json_schema_what_they_allow():
    inner = {"type": "map", "values": {"type": "double"}}
    spec = {
        "type": "object",
        "name": "profile",
        "properties": {
            "tags": {"type": "array", "items": {"type": "string"}},
            "scores": inner | {"required": False},
        },
    }

    (column,) = read(spec).columns

    assert column == Column(
        "profile",
        dtype="json",
        json_schema={
            "type": "object",
            "properties": {
                "tags": {"type": "array", "items": {"type": "string"}},
                "scores": {
                    "type": "object",
                    "additionalProperties": {"type": "number"},
                },
            },
            "required": ["tags"],
        },
    )


def test_parameters_keep_type_default_and_shape():
    signature = read(
        tensor([-1, 2]),
        params=[
            {"name": "temperature", "type": "float", "default": 0.5, "shape": None},
            {"name": "stop", "type": "string", "default": ["."], "shape": [-1]},
            {"name": "more", "type": "object", "properties": {}, "default": {}},
        ],
    )

    assert signature.params[:2] == (
        Param("temperature", "float32", 0.5),
        Param("stop", "str", ["."], (-1,)),
    )
    assert signature.params[2].dtype == "json"
    assert signature.params[2].json_schema["type"] == "object"


def test_outputs_keep_their_names_only_if_all_have_one():
    named = [tensor([-1], name="label"), tensor([-1], name="score")]

    assert read(tensor([-1, 2]), outputs=named).outputs == ("label", "score")
    assert read(tensor([-1, 2]), outputs=[tensor([-1, 2])]).outputs == ()


@pytest.mark.parametrize(
    ("shape", "facts", "expected"),
    [
        ([-1, 8, 6, 3], {"mode": "RGB"}, Image("RGB", 8, 6)),
        ([-1, 3, 8, 6], {"mode": "RGB"}, Image("RGB", 8, 6, True)),
        ([-1, 8, 6], {"mode": "L"}, Image("L", 8, 6)),
        ([-1, 1, 8, 6], {"mode": "L"}, Image("L", 8, 6, True)),
        (
            [-1, 3, -1, -1],
            {"mode": "RGB", "height": 8, "width": 6},
            Image("RGB", 8, 6, True),
        ),
    ],
)
def test_pictures_take_their_sizes_from_the_tensor(shape, facts, expected):
    assert read(tensor(shape), metadata={"image": facts}).image == expected


@pytest.mark.parametrize(
    ("inputs", "metadata", "words"),
    [
        ([], {}, "without an input signature"),
        ([tensor([2, 3])], {}, "must be -1"),
        ([tensor([])], {}, "must be -1"),
        ([tensor([-1, 0])], {}, "must be positive"),
        ([tensor([-1, 3]), tensor([-1, 3])], {}, "own name"),
        ([tensor([-1], name="a"), {"type": "long", "name": "b"}], {}, "mixed"),
        ([{"type": "long"}, {"type": "long"}], {}, "own name"),
        ([{"type": "sparse-vector", "name": "a"}], {}, "sparse-vector"),
        ([{"type": "array", "items": {"type": "new"}}], {}, "'new'"),
        ([tensor([-1, 3])], {"columns": ["a"]}, "names 1 columns"),
        ([tensor([-1, 3])], {"image": {"mode": "RGB"}}, "two or three sizes"),
        ([tensor([-1, 8, 8])], {"image": {"mode": "RGB"}}, "channel axis"),
        ([tensor([-1, 8, 8, 4])], {"image": {"mode": "RGB"}}, "3 channels"),
        ([tensor([-1, -1, -1, 3])], {"image": {"mode": "RGB"}}, "height and width"),
        ([tensor([-1, 8, 8])], {"image": {"mode": "L", "width": 9}}, "8x9"),
    ],
)
def test_what_cannot_be_served_says_why(inputs, metadata, words):
    with pytest.raises(UnsupportedSignature, match=words):
        read(*inputs, metadata=metadata)


def test_types_nested_without_end_are_refused():
    spec = {"type": "long"}
    for _ in range(50):
        spec = {"type": "array", "items": spec}

    with pytest.raises(UnsupportedSignature, match="too deeply"):
        read(spec)
