import json

import pytest

from registry.mlflow import model_file
from registry.mlflow.types import ArtifactRefused

TENSOR = '[{"type": "tensor", "tensor-spec": {"dtype": "float32", "shape": [-1, 2]}}]'
MLMODEL = f"""
flavors: {{python_function: {{}}, pytorch: {{}}}}
metadata:
  modelyard: {{task: classification, columns: [width, height]}}
  other: 1
signature:
  inputs: '{TENSOR}'
  outputs: '{TENSOR}'
  params: null
""".encode()


def test_flavors_signature_and_metadata_are_read():
    read = model_file.parse(MLMODEL)

    assert read.flavors == ("python_function", "pytorch")
    assert read.signature["inputs"] == json.loads(TENSOR)
    assert "params" not in read.signature
    assert read.metadata == {"task": "classification", "columns": ["width", "height"]}
    assert read.input_example is None
    assert read.problems == ()


@pytest.mark.parametrize(
    "example",
    [
        {"inputs": [[1.0, 2.0]]},
        {"instances": [{"width": 1.0, "height": 2.0}]},
        {"dataframe_records": [{"width": 1.0, "height": 2.0}]},
        {"dataframe_split": {"columns": ["width", "height"], "data": [[1.0, 2.0]]}},
        {"inputs": {"width": [1.0], "height": [2.0]}},
    ],
)
def test_every_layout_of_an_example_becomes_instances_by_name(example):
    read = model_file.parse(MLMODEL, example=json.dumps(example).encode())

    assert read.input_example == [{"width": 1.0, "height": 2.0}]


def test_a_tensor_without_names_keeps_its_nested_lists():
    unnamed = MLMODEL.replace(b", columns: [width, height]", b"")

    read = model_file.parse(unnamed, example=b'{"inputs": [[1, 2], [3, 4]]}')

    assert read.input_example == [[1, 2], [3, 4]]


def test_several_tensors_are_named_in_each_instance():
    several = MLMODEL.replace(
        TENSOR.encode(),
        json.dumps(
            [json.loads(TENSOR)[0] | {"name": name} for name in ("ids", "mask")]
        ).encode(),
        1,
    )

    read = model_file.parse(
        several, example=b'{"inputs": {"ids": [[1, 2]], "mask": [[1, 0]]}}'
    )

    assert read.input_example == [{"ids": [1, 2], "mask": [1, 0]}]


def test_columns_without_names_are_named_as_requests_do():
    text = MLMODEL.replace(TENSOR.encode(), b'[{"type": "string"}]', 1)

    read = model_file.parse(
        text, example=b'{"dataframe_split": {"columns": [0], "data": [["Hallo"]]}}'
    )

    assert read.input_example == [{"input": "Hallo"}]


def test_a_single_text_column_is_named_in_the_example():
    text = MLMODEL.replace(TENSOR.encode(), b'[{"type": "string", "name": "text"}]', 1)

    read = model_file.parse(text, example=b'{"inputs": ["Guten Tag"]}')

    assert read.input_example == [{"text": "Guten Tag"}]


def test_only_a_few_rows_of_an_example_are_kept():
    example = json.dumps({"inputs": [[1.0, 2.0]] * 50}).encode()

    read = model_file.parse(MLMODEL, example=example)

    assert len(read.input_example) == model_file.MAX_EXAMPLE_ROWS


@pytest.mark.parametrize("example", [b"{", b"[" * 100_000, b"7", b'{"inputs": 7}'])
def test_an_unreadable_example_is_no_example(example):
    assert model_file.parse(MLMODEL, example=example).input_example is None


def test_not_finite_numbers_and_nul_become_what_databases_can_hold():
    read = model_file.plain({"a": float("nan"), "b": [float("inf")], "c": "x\0y\ud800"})

    assert read == {"a": None, "b": [None], "c": "xy?"}


BOMB = b"a: &a [x,x,x,x,x,x,x,x,x]\n" + b"".join(
    b"%c: &%c [%s]\n" % (name, name, b",".join([b"*%c" % (name - 1)] * 9))
    for name in range(ord("b"), ord("k"))
)


@pytest.mark.parametrize(
    "mlmodel",
    [
        b"{",
        b"[1, 2]",
        b"x: !!python/object/apply:os.system ['true']",
        b"[" * 5_000,
        b"a: &a [*a]",
        BOMB,
        b"a: " + b"x" * model_file.MAX_MLMODEL_BYTES,
    ],
    ids=["no yaml", "list", "python tag", "deep", "cyclic", "aliases", "large"],
)
def test_a_hostile_mlmodel_is_refused(mlmodel):
    with pytest.raises(ArtifactRefused, match="MLmodel"):
        model_file.parse(mlmodel)


def test_an_unreadable_signature_is_told_and_the_rest_is_kept():
    broken = MLMODEL.replace(TENSOR.encode(), b"[{", 1)

    read = model_file.parse(broken)

    assert read.problems == ("The signature's inputs are not readable JSON.",)
    assert "outputs" in read.signature


def test_float32_values_of_an_example_are_written_as_people_do():
    example = b'{"inputs": [[13.680000305175781, 0.09277000278234482], [7, 1e300]]}'

    read = model_file.parse(MLMODEL, example=example)

    assert read.input_example == [
        {"width": 13.68, "height": 0.09277},
        {"width": 7, "height": 1e300},
    ]
