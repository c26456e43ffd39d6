"""Typed operations of one published model, for the OpenAPI document. Pure."""

import re
import zlib
from typing import Any
from urllib.parse import quote

import msgspec

from inference.engine.signature import Signature, Task
from inference.openapi import common_parts as common
from inference.openapi import examples, request_bodies, schemas
from inference.snapshot import CallableVersion

_REQUEST_PARAMETERS = ("RequestId", "DeadlineMs", "StickyKey")


class PublishedModel(msgspec.Struct, frozen=True):
    """A model that a reader of the docs may call, with the version that answers.

    `pinned` models have no route: they are called by version only.
    """

    name: str
    described: CallableVersion
    description: str = ""
    pinned: bool = False
    explainable: bool = False
    canary: int | None = None


def example_instances(model: PublishedModel) -> list[Any] | None:
    """Return a few instances that work when they are sent."""
    described = model.described
    instances, _ = examples.working_instances(described.signature, described.example)
    return instances or None


def component_prefixes(names: list[str]) -> dict[str, str]:
    """Give every model a distinct name for its components and operations.

    Two names that differ only in punctuation would give the same one; all but the
    first in alphabetical order then carry a checksum, so that the others stay put.
    """
    prefixes: dict[str, str] = {}
    for name in sorted(names):
        words = re.findall(r"[A-Za-z0-9]+", name)
        prefix = "".join(word[0].upper() + word[1:] for word in words) or "Model"
        if prefix in prefixes.values():
            prefix = f"{prefix}{zlib.crc32(name.encode()):08x}"
        prefixes[name] = prefix
    return prefixes


def typed_parts(
    model: PublishedModel, *, prefix: str
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the paths and the component schemas of one model."""
    signature = model.described.signature
    base = f"/api/v1/models/{quote(model.name, safe='')}"
    if model.pinned:
        base += f"/versions/{model.described.version}"
    operations = [
        (f"{base}/predict", "Predict", f"Predict with {model.name}"),
        (f"{base}/predict/batch", "Batch", f"Predict many rows with {model.name}"),
    ]
    if model.explainable:
        operations.append((f"{base}/explain", "Explain", f"Explain {model.name}"))
    if signature.task is Task.EMBEDDING:
        operations.append((f"{base}/embed", "Embed", f"Embed with {model.name}"))
    paths = {
        path: {"post": _operation(model, kind=kind, summary=summary, prefix=prefix)}
        for path, kind, summary in operations
    }
    return paths, _component_schemas(model, signature, prefix=prefix)


def tag(model: PublishedModel) -> dict[str, str]:
    """Describe the model where the docs list its operations."""
    facts = [f"Version {model.described.version}"]
    if model.described.aliases:
        facts[0] += f" ({', '.join(model.described.aliases)})"
    if model.canary is not None:
        facts.append(f"version {model.canary} answers a share as canary")
    return {
        "name": model.name,
        "description": "\n\n".join(
            part for part in (model.description, "; ".join(facts) + ".") if part
        ),
    }


def _operation(
    model: PublishedModel, *, kind: str, summary: str, prefix: str
) -> dict[str, Any]:
    signature = model.described.signature
    instances, logged = examples.working_instances(signature, model.described.example)
    answer: dict[str, Any] = {
        "schema": _reference(f"{prefix}{kind if kind in _OWN_ANSWERS else ''}Answer")
    }
    if instances:
        answer["examples"] = {
            "form": {
                "summary": "The form of an answer; its numbers are made up",
                "value": _example_answer(model, rows=len(instances), kind=kind),
            }
        }
    content: dict[str, Any] = {"application/json": answer}
    if kind == "Explain":
        content["image/svg+xml"] = {
            "schema": {
                "type": "string",
                "description": "The first instance's explanation as a waterfall.",
            }
        }
    parameters: list[dict[str, Any]] = [
        _reference(name, "parameters") for name in _REQUEST_PARAMETERS
    ]
    if not model.pinned:
        parameters.append(_reference("ModelVersion", "parameters"))
    if kind == "Predict" and model.explainable:
        parameters.append(_EXPLAIN_PARAMETER)
    return {
        "operationId": f"{kind.lower()}{prefix}",
        "tags": [model.name],
        "summary": summary,
        "description": " ".join([_DESCRIPTIONS[kind], *_notes(signature)]),
        "parameters": parameters,
        "security": common.SECURITY,
        "requestBody": {
            "required": True,
            "content": request_bodies.request_content(
                signature,
                kind=kind,
                schema=_reference(f"{prefix}{kind}Request"),
                instances=instances,
                logged=logged,
            ),
        },
        "responses": {
            "200": {
                "description": "The answer.",
                "headers": common.answer_headers(prediction=True),
                "content": content,
            },
            **common.error_responses(common.PREDICTION_STATUSES),
        },
    }


# Kinds whose answers have a form of their own.
_OWN_ANSWERS = ("Explain", "Embed")
_DESCRIPTIONS = {
    "Predict": "Answers every instance, in order. One bad instance refuses them all.",
    "Batch": "As predict, for more rows. With `return_errors: individual` the good "
    "rows are answered, `predictions` is `null` at the bad ones and `errors` says why.",
    "Embed": "Answers every instance with its vector.",
    "Explain": "Answers every instance with its SHAP values: what each feature added "
    "to the base value to make the prediction.",
}


def _notes(signature: Signature) -> list[str]:
    """Say what a schema cannot."""
    if schemas.is_tabular(signature):
        return [
            "An instance may also be an array of its values, in the order of the "
            "columns."
        ]
    if signature.image is not None:
        return [
            "Images are PNG or JPEG: one as the body, several as a form, or base64 in "
            f"JSON. They are scaled to {signature.image.height} × "
            f"{signature.image.width}."
        ]
    if signature.padding is not None:
        return [
            f"Rows may have up to {signature.padding.longest} values; shorter ones are "
            "filled up."
        ]
    return []


_EXPLAIN_PARAMETER = {
    "name": "explain",
    "in": "query",
    "description": "Also explain each prediction, at level `simple`.",
    "schema": {"type": "boolean", "default": False},
}


def _reference(name: str, kind: str = "schemas") -> dict[str, str]:
    return {"$ref": f"#/components/{kind}/{name}"}


def _component_schemas(
    model: PublishedModel, signature: Signature, *, prefix: str
) -> dict[str, Any]:
    prediction = _reference(f"{prefix}Prediction")
    kinds = ["Predict", "Batch"]
    parts = {
        f"{prefix}Instance": schemas.instance_schema(signature),
        f"{prefix}Prediction": schemas.prediction_schema(signature),
        f"{prefix}Answer": _answer(model, prediction),
    }
    if model.explainable:
        kinds.append("Explain")
        explanation = _reference(f"{prefix}Explanation")
        parts[f"{prefix}Explanation"] = schemas.explanation_schema(signature)
        explained = _answer(model, prediction)
        explained["properties"]["explanations"] = _array(explanation)
        explained["required"] = [*explained["required"], "explanations"]
        parts[f"{prefix}ExplainAnswer"] = explained
        parts[f"{prefix}Answer"]["properties"]["explanations"] = {
            **_array(explanation),
            "description": "With `?explain=true`.",
        }
    if signature.task is Task.EMBEDDING:
        kinds.append("Embed")
        parts[f"{prefix}EmbedAnswer"] = _embed_answer(model)
    for kind in kinds:
        parts[f"{prefix}{kind}Request"] = request_bodies.request_schema(
            signature, kind=kind, instance=_reference(f"{prefix}Instance")
        )
    return parts


def _array(items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items}


def _answer(model: PublishedModel, prediction: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "required": ["predictions", "model", "request_id"],
        "properties": {
            "predictions": _array({"anyOf": [prediction, {"type": "null"}]}),
            "model": {
                "type": "object",
                "required": ["name", "version", "variant"],
                "properties": {
                    "name": {"type": "string", "enum": [model.name]},
                    "version": {"type": "string"},
                    "variant": {"type": "string"},
                    "alias": {"type": ["string", "null"]},
                },
            },
            "request_id": {"type": "string"},
            "warnings": _array(
                {
                    "type": "object",
                    "required": ["index", "code"],
                    "properties": {
                        "index": {"type": "integer"},
                        "code": {"type": "string"},
                    },
                }
            ),
            "errors": {
                **_array(_reference("Problem")),
                "description": "With `return_errors: individual`.",
            },
        },
    }


def _embed_answer(model: PublishedModel) -> dict[str, Any]:
    answer = _answer(model, {})
    properties = answer["properties"]
    del properties["predictions"], properties["errors"]
    numbers = _array({"type": ["number", "null"]})
    properties["embeddings"] = _array({"anyOf": [numbers, {"type": "string"}]})
    properties["dimension"] = {"type": "integer"}
    answer["required"] = ["embeddings", "dimension", "model", "request_id"]
    return answer


def _example_answer(model: PublishedModel, *, rows: int, kind: str) -> dict[str, Any]:
    signature = model.described.signature
    aliases = model.described.aliases
    answer: dict[str, Any] = {
        "predictions": [schemas.example_prediction(signature)] * rows,
        "model": {
            "name": model.name,
            "version": str(model.described.version),
            "variant": "default",
            "alias": aliases[0] if aliases else None,
        },
        "request_id": "req_01JZ8Q6K3V9T4X2N7B5M0C1D2E",
    }
    if kind == "Embed":
        del answer["predictions"]
        answer |= {"embeddings": [[0.12, -0.5, 0.33]] * rows, "dimension": 3}
    if kind == "Explain":
        feature = signature.columns[0].name if signature.columns else "0"
        answer["explanations"] = [
            {
                "method": "gradient",
                "level": "simple",
                "base_value": 0.37,
                "target": signature.labels[0] if signature.labels else None,
                "samples": 200,
                "features": [{"feature": feature, "value": 1.0, "attribution": 0.21}],
                "additivity_residual": 0.0004,
            }
        ] * rows
    return answer
