"""The examples of the docs work, for every kind of model."""

import base64
import io
import json

import jsonschema
import PIL.Image
import pytest

from inference.api.openapi import examples, request_bodies, schemas
from inference.codecs.decoding import InstanceDecoder
from inference.engine.signatures.signature import (
    Column,
    Image,
    Layout,
    Param,
    Signature,
    TensorInput,
)

ANY_OBJECT = {
    "type": "object",
    "properties": {
        "tags": {"type": "array", "items": {"type": "string"}},
        "at": {"type": "string", "format": "date-time"},
    },
    "required": ["tags"],
}
SIGNATURES = {
    "matrix": Signature(
        layout=Layout.MATRIX, columns=(Column("width", minimum=5),), shape=(1,)
    ),
    "table": Signature(
        layout=Layout.TABLE,
        columns=(
            Column("when", "datetime64[ns]"),
            Column("photo", "bytes", required=False),
            Column("more", "json", json_schema=ANY_OBJECT),
            Column("plan", "str", enum=("free", "paid")),
            Column("short", "str", max_length=2),
            Column("sure", "bool"),
            Column("count", "int8", maximum=-3),
        ),
        params=(Param("beams", "int64", 1), Param("stop", "str", [], (-1,))),
    ),
    "tensor": Signature(layout=Layout.TENSOR, dtype="uint8", shape=(2, -1)),
    "tensors": Signature(
        layout=Layout.TENSORS,
        inputs=(TensorInput("ids", "int64", (-1,)), TensorInput("scale", "float16")),
    ),
    "image": Signature(
        layout=Layout.TENSOR,
        shape=(3, 8, 8),
        image=Image(mode="RGB", height=8, width=8, channels_first=True),
    ),
    "text": Signature(layout=Layout.TABLE, columns=(Column("text", "str"),)),
}


@pytest.mark.parametrize("name", SIGNATURES)
def test_made_up_instances_work_and_keep_their_schema(name):
    signature = SIGNATURES[name]

    instances, logged = examples.working_instances(signature, None)

    assert not logged
    decoded = InstanceDecoder(signature).decode_request(
        json.dumps({"instances": instances}).encode()
    )
    assert decoded.rows == len(instances) == 1
    schema = schemas.instance_schema(signature)
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(instances[0], schema)


def test_logged_instances_go_before_made_up_ones():
    rows = [{"width": number} for number in range(5, 9)]

    assert examples.working_instances(SIGNATURES["matrix"], rows) == (rows[:2], True)


def test_tensors_too_large_to_show_have_no_example():
    signature = Signature(layout=Layout.TENSOR, shape=(1000,))

    assert examples.working_instances(signature, None) == ([], False)


def test_the_picture_is_one():
    file = base64.b64decode(examples.pixel_png())

    with PIL.Image.open(io.BytesIO(file)) as picture:
        picture.load()
        assert picture.size == (1, 1)


@pytest.mark.parametrize(
    ("name", "kind", "types"),
    [
        ("matrix", "Predict", {"application/json"}),
        ("text", "Predict", {"application/json", "text/plain"}),
        (
            "image",
            "Predict",
            {"application/json", "multipart/form-data", "image/png", "image/jpeg"},
        ),
        ("image", "PredictBatch", {"application/json", "multipart/form-data"}),
    ],
)
def test_bodies_are_described_in_every_form_that_is_read(name, kind, types):
    content = request_bodies.request_content(
        SIGNATURES[name], kind=kind, schema={}, example=None
    )

    assert set(content) == types


def test_parameters_are_described_with_their_defaults():
    schema = request_bodies.parameters_schema(SIGNATURES["table"].params)

    jsonschema.validate({"beams": 2, "stop": ["."]}, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"heat": 2}, schema)
    assert schema["properties"]["beams"] == {
        "type": "integer",
        "default": 1,
        "description": "A parameter of the model (int64).",
    }
