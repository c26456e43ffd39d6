"""Typed operations of one published model, for the OpenAPI document. Pure."""

import re
import zlib
from typing import Any
from urllib.parse import quote

import msgspec

from inference.decoding import InstanceDecoder
from inference.engine.signature import Signature
from inference.errors import ApiError
from inference.openapi import common_parts as common
from inference.openapi import schemas
from inference.snapshot import CallableVersion

# Instances of the logged example that the docs show: enough to see that a list goes in.
_EXAMPLE_ROWS = 2

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
    """Return the first instances of the logged example, if they work when sent."""
    example = model.described.example
    rows = example if isinstance(example, list) else [example]
    instances: list[Any] = rows[:_EXAMPLE_ROWS]
    try:
        InstanceDecoder(model.described.signature).decode_request(
            msgspec.json.encode({"instances": instances})
        )
    except (ApiError, TypeError, ValueError):
        # Logged in a form that requests do not have, or a rule set since refuses it.
        return None
    return instances


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
    request: dict[str, Any] = {"schema": _reference(f"{prefix}{kind}Request")}
    answer: dict[str, Any] = {
        "schema": _reference(f"{prefix}{'Explain' if kind == 'Explain' else ''}Answer")
    }
    instances = example_instances(model)
    if instances is not None:
        request["examples"] = {
            "logged": {
                "summary": "Rows logged with the model",
                "value": {"instances": instances},
            }
        }
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
        "description": _DESCRIPTIONS[kind],
        "parameters": parameters,
        "security": common.SECURITY,
        "requestBody": {"required": True, "content": {"application/json": request}},
        "responses": {
            "200": {
                "description": "The answer.",
                "headers": common.answer_headers(prediction=True),
                "content": content,
            },
            **common.error_responses(common.PREDICTION_STATUSES),
        },
    }


_DESCRIPTIONS = {
    "Predict": "Answers every instance, in order. One bad instance refuses them all. "
    "An instance may also be an array of its values, in the order of the columns.",
    "Batch": "As predict, for more rows. With `return_errors: individual` the good "
    "rows are answered, `predictions` is `null` at the bad ones and `errors` says why.",
    "Explain": "Answers every instance with its SHAP values: what each feature added "
    "to the base value to make the prediction.",
}
_EXPLAIN_PARAMETER = {
    "name": "explain",
    "in": "query",
    "description": "Also explain each prediction, at level `simple`.",
    "schema": {"type": "boolean", "default": False},
}


def _reference(name: str, kind: str = "schemas") -> dict[str, str]:
    return {"$ref": f"#/components/{kind}/{name}"}


def _options(kind: str, signature: Signature) -> dict[str, Any]:
    """Describe the options that mean something here."""
    names = ["timeout_ms"]
    if signature.labels:
        names.append("top_k")
    if kind == "Batch":
        names += ["batch_size", "return_errors"]
    if kind == "Explain":
        names += ["level", "method", "samples", "target", "seed"]
    return {
        "type": "object",
        "properties": {name: _OPTIONS[name] for name in names},
    }


# As `inference.options` reads them.
_OPTIONS: dict[str, Any] = {
    "timeout_ms": {
        "type": "integer",
        "minimum": 1,
        "maximum": 3_600_000,
        "description": "Shortens the deadline.",
    },
    "top_k": {
        "type": "integer",
        "minimum": 1,
        "maximum": 1000,
        "description": "Also give the scores of that many best labels.",
    },
    "batch_size": {
        "type": "integer",
        "minimum": 1,
        "maximum": 100_000,
        "description": "Rows per forward pass at most.",
    },
    "return_errors": {
        "type": "string",
        "enum": ["fail", "individual"],
        "default": "fail",
        "description": "What one bad row does: refuse all, or only itself.",
    },
    "level": {
        "type": "string",
        "enum": ["simple", "full"],
        "description": "`simple`: the five largest attributions. `full`: all.",
    },
    "method": {
        "type": "string",
        "pattern": "^[a-z_]+$",
        "maxLength": 40,
        "default": "auto",
    },
    "samples": {
        "type": "integer",
        "minimum": 1,
        "maximum": 1_000_000,
        "description": "Forward passes per instance at most.",
    },
    "target": {
        "type": ["string", "integer"],
        "description": "Label or index of the class; else the predicted one.",
    },
    "seed": {"type": "integer", "minimum": 0, "maximum": 2**32 - 1, "default": 0},
}


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
    for kind in kinds:
        parts[f"{prefix}{kind}Request"] = {
            "type": "object",
            "required": ["instances"],
            "properties": {
                "instances": {**_array(_reference(f"{prefix}Instance")), "minItems": 1},
                "options": _options(kind, signature),
            },
        }
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
    if kind == "Explain":
        feature = signature.columns[0].name
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
