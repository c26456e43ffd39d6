"""Describe operations without a Django view: health and the Open Inference Protocol.

Only the gateway answers `/v2`, so its description is written here by hand. The
protocol: https://github.com/kserve/open-inference-protocol. Without I/O.
"""

from typing import Any

from inference.api.openapi import common_parts as common
from inference.api.openapi.shared_schemas import OBJECT, array, opened, reference
from inference.errors.advice import ADVICE, codes_of

HEALTH_TAG = {"name": "Health", "description": "For probes; without a key."}
OPEN_INFERENCE_TAG = {
    "name": "Open Inference Protocol",
    "description": "The same models for clients of KServe, Triton and MLServer. "
    "Binary tensors and gRPC are spoken too, see the documentation on protocols.",
}
_MODEL = "/v2/models/{model}"
_VERSION = f"{_MODEL}/versions/{{version}}"

_VALUES = {"type": ["number", "string", "boolean"]}
_TENSOR: dict[str, Any] = opened(
    {
        "name": {"type": "string"},
        "datatype": {"type": "string"},
        "shape": array({"type": "integer", "minimum": 0}),
        "parameters": OBJECT,
        # Flat, or nested as deep as the shape.
        "data": array({"anyOf": [_VALUES, array({})]}),
    },
    required=("name", "datatype", "shape"),
)
_TENSOR_FACTS = opened(
    {
        "name": {"type": "string"},
        "datatype": {"type": "string"},
        "shape": array({"type": "integer", "minimum": -1}),
    },
    required=("name", "datatype", "shape"),
)
_TENSORS = array(reference("OipTensor"))

SCHEMAS: dict[str, Any] = {
    "OipTensor": _TENSOR,
    "OipTensorFacts": _TENSOR_FACTS,
    "OipRequestedOutput": opened(
        {"name": {"type": "string"}, "parameters": OBJECT}, required=("name",)
    ),
    "OipRequest": opened(
        {
            "id": {"type": "string"},
            "parameters": OBJECT,
            "inputs": _TENSORS,
            "outputs": array(reference("OipRequestedOutput")),
        },
        required=("inputs",),
    ),
    "OipAnswer": opened(
        {
            "model_name": {"type": "string"},
            "model_version": {"type": "string"},
            "id": {"type": "string"},
            "parameters": OBJECT,
            "outputs": _TENSORS,
        },
        required=("model_name", "model_version", "outputs"),
    ),
    "OipModel": opened(
        {
            "name": {"type": "string"},
            "versions": array({"type": "string"}),
            "platform": {"type": "string"},
            "inputs": array(reference("OipTensorFacts")),
            "outputs": array(reference("OipTensorFacts")),
        },
        required=("name", "versions", "platform", "inputs", "outputs"),
    ),
    "OipError": opened({"error": {"type": "string"}}, required=("error",)),
}


def paths() -> dict[str, Any]:
    """Return the paths, in reading order."""
    return {
        "/healthz": {"get": _health("getHealth", "Whether this process answers", "ok")},
        "/readyz": {
            "get": _health(
                "getReadiness", "Whether the defaults of models can answer", "ready"
            )
        },
        f"{_MODEL}/infer": {"post": _infer("oipInfer", "Infer")},
        f"{_VERSION}/infer": {
            "post": _infer("oipInferWithVersion", "Infer with one version")
        },
        _MODEL: {"get": _metadata("oipGetModel", "Inputs of a model")},
        _VERSION: {"get": _metadata("oipGetModelWithVersion", "Inputs of one version")},
    }


def _health(name: str, summary: str, word: str) -> dict[str, Any]:
    answers = {"200": _text(word)}
    if word == "ready":
        answers["503"] = _text("not ready")
    return {
        "operationId": name,
        "tags": [HEALTH_TAG["name"]],
        "summary": summary,
        "description": "A word, for load balancers and orchestrators.",
        "security": [],
        "responses": answers,
    }


def _text(word: str) -> dict[str, Any]:
    return {
        "description": f"The word `{word}`.",
        "content": {"text/plain": {"schema": {"type": "string"}, "example": word}},
    }


def _infer(name: str, summary: str) -> dict[str, Any]:
    return {
        **_operation(name, summary),
        "description": "With `Inference-Header-Content-Length` the body is that many "
        "bytes of JSON, and then the raw tensors. Outputs are the model's own, without "
        "labels.",
        # No example, because none fits every model's inputs.
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": reference("OipRequest")}},
        },
    } | _answers("OipAnswer", common.PREDICTION_STATUSES, prediction=True)


def _metadata(name: str, summary: str) -> dict[str, Any]:
    return {
        **_operation(name, summary),
        "description": "Names, types and shapes of its tensors, as clients of the "
        "protocol ask for them.",
    } | _answers("OipModel", common.COMMON_STATUSES, about_a_model=True)


def _operation(name: str, summary: str) -> dict[str, Any]:
    names = ["ModelName", "VersionName"] if name.endswith("Version") else ["ModelName"]
    return {
        "operationId": name,
        "tags": [OPEN_INFERENCE_TAG["name"]],
        "summary": summary,
        "security": common.SECURITY,
        "parameters": [reference(parameter, "parameters") for parameter in names],
    }


def _answers(
    schema: str,
    statuses: tuple[int, ...],
    *,
    prediction: bool = False,
    about_a_model: bool = False,
) -> dict[str, Any]:
    return {
        "responses": {
            "200": {
                "description": "The answer.",
                "headers": common.answer_headers(
                    prediction=prediction, about_a_model=about_a_model
                ),
                "content": {"application/json": {"schema": reference(schema)}},
            },
            **{str(status): _error(status) for status in sorted(statuses)},
        }
    }


def _error(status: int) -> dict[str, Any]:
    code = codes_of(status)[0]
    return {
        "description": common.description_of(status),
        "content": {
            "application/json": {
                "schema": {"$ref": "#/components/schemas/OipError"},
                "example": {"error": f"{code}: {ADVICE[code].when}"},
            }
        },
    }
