import jsonschema
import msgspec
import pytest

from inference.api.openapi import gateway_operations
from inference.dialects.open_inference.over_http import render_error
from inference.errors.api_error import ApiError, ErrorCode
from inference.gateway.open_inference.app import is_open_inference
from inference.gateway.routes import asks_alive, asks_ready, find_prediction

PATHS = gateway_operations.paths()


def _check(schema, value):
    document = {"components": {"schemas": gateway_operations.SCHEMAS}}
    jsonschema.Draft202012Validator({**schema, **document}).validate(value)


@pytest.mark.parametrize("path", PATHS)
def test_the_gateway_answers_every_path_itself(path):
    assert asks_alive(path) or asks_ready(path) or is_open_inference(path)


def test_operations_called_infer_are_predictions():
    described = {path for path in PATHS if find_prediction(path) is not None}

    assert described == {path for path in PATHS if path.endswith("/infer")}
    assert len(described) == 2


def test_examples_fit_their_schemas():
    checked = 0
    for operations in PATHS.values():
        for operation in operations.values():
            parts = [operation.get("requestBody", {}), *operation["responses"].values()]
            for part in parts:
                for content in part.get("content", {}).values():
                    if "example" in content:
                        _check(content["schema"], content["example"])
                        checked += 1

    assert checked > 20


def test_errors_have_the_documented_form():
    error = ApiError(ErrorCode.NOT_FOUND, "There is no such model.")
    _, _, body = render_error(error, "req_1")

    _check({"$ref": "#/components/schemas/OipError"}, msgspec.json.decode(body))
