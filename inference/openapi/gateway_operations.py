"""Operations that no Django view describes: health, and the Open Inference Protocol.

The gateway alone answers `/v2`, so its description is written here by hand. The
protocol's own text: https://github.com/kserve/open-inference-protocol. Pure.
"""

from typing import Any

from inference.error_advice import ADVICE, codes_of
from inference.openapi import common_parts as common

HEALTH_TAG = {"name": "Health", "description": "For probes; without a key."}
OPEN_INFERENCE_TAG = {
    "name": "Open Inference Protocol",
    "description": "The same models for clients of KServe, Triton and MLServer. "
    "Binary tensors and gRPC are spoken too, see the documentation on protocols.",
}
_MODEL = "/v2/models/{model}"
_VERSION = f"{_MODEL}/versions/{{version}}"

_EXAMPLE_INPUT = {
    "name": "input",
    "datatype": "FP32",
    "shape": [1, 3],
    "data": [5.1, 3.5, 1.4],
}
_EXAMPLE_OUTPUT = {"name": "output", "datatype": "FP32", "shape": [1], "data": [0.73]}

_TENSOR = {
    "type": "object",
    "required": ["name", "datatype", "shape"],
    "properties": {
        "name": {"type": "string"},
        "datatype": {
            "type": "string",
            "description": "`FP32`, `INT64`, `BOOL`, `BYTES` for text, …",
        },
        "shape": {"type": "array", "items": {"type": "integer"}},
        "parameters": {"type": "object"},
        "data": {"type": "array", "description": "Flat, in row-major order."},
    },
}
_TENSORS = {"type": "array", "items": {"$ref": "#/components/schemas/OipTensor"}}

SCHEMAS: dict[str, Any] = {
    "OipTensor": _TENSOR,
    "OipRequest": {
        "type": "object",
        "required": ["inputs"],
        "properties": {
            "id": {"type": "string"},
            "parameters": {"type": "object"},
            "inputs": _TENSORS,
            "outputs": {
                "type": "array",
                "description": "Only these, if any are named.",
                "items": {
                    "type": "object",
                    "required": ["name"],
                    "properties": {"name": {"type": "string"}},
                },
            },
        },
    },
    "OipAnswer": {
        "type": "object",
        "required": ["model_name", "model_version", "outputs"],
        "properties": {
            "model_name": {"type": "string"},
            "model_version": {"type": "string"},
            "id": {"type": "string"},
            "outputs": _TENSORS,
        },
    },
    "OipError": {
        "type": "object",
        "required": ["error"],
        "properties": {"error": {"type": "string"}},
    },
}


def paths() -> dict[str, Any]:
    """Return the paths, in the order in which people read them."""
    return {
        "/healthz": {"get": _health("alive", "Whether this process answers", "ok")},
        "/readyz": {
            "get": _health("ready", "Whether every model's default can answer", "ready")
        },
        f"{_MODEL}/infer": {"post": _infer("oip_infer", "Infer")},
        f"{_VERSION}/infer": {
            "post": _infer("oip_infer_with_version", "Infer with one version")
        },
        _MODEL: {"get": _metadata("oip_model", "Inputs of a model")},
        _VERSION: {"get": _metadata("oip_version", "Inputs of one version")},
    }


def _health(name: str, summary: str, word: str) -> dict[str, Any]:
    answers = {"200": _text(word)}
    if name == "ready":
        answers["503"] = _text("not ready")
    return {
        "operationId": name,
        "tags": [HEALTH_TAG["name"]],
        "summary": summary,
        "security": [],
        "responses": answers,
    }


def _text(word: str) -> dict[str, Any]:
    return {
        "description": f"The word `{word}`.",
        "content": {"text/plain": {"schema": {"type": "string"}, "example": word}},
    }


def _infer(name: str, summary: str) -> dict[str, Any]:
    answer = {
        "model_name": "iris",
        "model_version": "3",
        "id": "42",
        "outputs": [_EXAMPLE_OUTPUT],
    }
    return {
        **_operation(name, summary),
        "description": "With `Inference-Header-Content-Length` the body is that many "
        "bytes of JSON, and then the raw tensors. Outputs are the model's own, without "
        "labels.",
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {
                    "schema": {"$ref": "#/components/schemas/OipRequest"},
                    "example": {"id": "42", "inputs": [_EXAMPLE_INPUT]},
                }
            },
        },
    } | _answers("OipAnswer", answer, common.PREDICTION_STATUSES, prediction=True)


def _metadata(name: str, summary: str) -> dict[str, Any]:
    answer = {
        "name": "iris",
        "versions": ["3"],
        "platform": "modelyard_engine",
        "inputs": [{"name": "input", "datatype": "FP32", "shape": [-1, 3]}],
        "outputs": [],
    }
    return _operation(name, summary) | _answers(None, answer, (401, 403, 404))


def _operation(name: str, summary: str) -> dict[str, Any]:
    names = ["model", "version"] if name.endswith("version") else ["model"]
    return {
        "operationId": name,
        "tags": [OPEN_INFERENCE_TAG["name"]],
        "summary": summary,
        "security": common.SECURITY,
        "parameters": [
            {
                "name": parameter,
                "in": "path",
                "required": True,
                "schema": {"type": "string"},
            }
            for parameter in names
        ],
    }


def _answers(
    schema: str | None,
    example: dict[str, Any],
    statuses: tuple[int, ...],
    *,
    prediction: bool = False,
) -> dict[str, Any]:
    form = {"$ref": f"#/components/schemas/{schema}"} if schema else {"type": "object"}
    answer: dict[str, Any] = {
        "description": "The answer.",
        "content": {"application/json": {"schema": form, "example": example}},
    }
    if prediction:
        answer["headers"] = common.answer_headers(prediction=True)
    return {
        "responses": {
            "200": answer,
            **{str(status): _error(status) for status in sorted(statuses)},
        }
    }


def _error(status: int) -> dict[str, Any]:
    code = codes_of(status)[0]
    return {
        "description": " ".join(ADVICE[code].when for code in codes_of(status)),
        "content": {
            "application/json": {
                "schema": {"$ref": "#/components/schemas/OipError"},
                "example": {"error": f"{code}: {ADVICE[code].when}"},
            }
        },
    }
