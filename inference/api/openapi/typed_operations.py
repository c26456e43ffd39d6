"""Describe the typed operations of one model in OpenAPI. Without I/O."""

import re
import zlib
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import msgspec

from inference.api.openapi import common_parts as common
from inference.api.openapi import examples, request_bodies, schemas, shared_schemas
from inference.api.openapi.descriptions import described
from inference.api.openapi.shared_schemas import reference
from inference.engine.signatures.signature import Signature, Task
from inference.engine.wire.dtypes import DATETIME, OBJECT_DTYPES
from inference.snapshot.contents import CallableVersion, Ending

_REQUEST_PARAMETERS = ("RequestId", "DeadlineMs", "StickyKey")


class PublishedModel(msgspec.Struct, frozen=True):
    """A model that a reader of the docs may call, with the version that answers.

    `pinned` models have no route and are called only by version.
    """

    name: str
    described: CallableVersion
    description: str = ""
    pinned: bool = False
    explainable: bool = False
    canaries: tuple[int, ...] = ()
    ending: Ending | None = None


def can_explain(signature: Signature) -> bool:
    """Return whether /explain works: it needs named number columns and a background."""
    return (
        signature.columns != ()
        and signature.task not in (Task.IMAGE, Task.TEXT, Task.EMBEDDING)
        and signature.background is not None
        and all(
            column.dtype not in OBJECT_DTYPES and column.dtype != DATETIME
            for column in signature.columns
        )
    )


def example_instances(model: PublishedModel) -> list[Any] | None:
    """Return a few instances that the model accepts; None if there are none."""
    described = model.described
    instances, _ = examples.working_instances(described.signature, described.example)
    return instances or None


def component_prefixes(names: list[str]) -> dict[str, str]:
    """Return a distinct prefix for each model's components and operations.

    Names that differ only in punctuation would have the same prefix: all but the first
    in alphabetical order get a checksum, so that other prefixes never change. So does a
    prefix that would form the name of a shared component.
    """
    prefixes: dict[str, str] = {}
    for name in sorted(names):
        words = re.findall(r"[A-Za-z0-9]+", name)
        prefix = "".join(word[0].upper() + word[1:] for word in words)
        if not prefix[:1].isalpha():
            prefix = f"Model{prefix}"
        taken = prefix in prefixes.values() or any(
            f"{prefix}{ending}" in shared_schemas.SCHEMAS for ending in _ENDINGS
        )
        if taken:
            prefix = f"{prefix}{zlib.crc32(name.encode()):08x}"
        prefixes[name] = prefix
    return prefixes


def typed_parts(
    model: PublishedModel, *, prefix: str
) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Return the paths, the component schemas and the examples of one model."""
    base = f"/api/v1/models/{quote(model.name, safe='')}"
    if model.pinned:
        base += f"/versions/{model.described.version}"
    kinds = _kinds(model)
    signature = model.described.signature
    instances, logged = examples.working_instances(signature, model.described.example)
    shown = None
    parts: dict[str, Any] = {}
    if instances:
        name = f"{prefix}Instances"
        shown = {"logged" if logged else "made_up": reference(name, "examples")}
        summary = "Rows logged with the model" if logged else "A made-up request"
        parts[name] = {"summary": summary, "value": {"instances": instances}}
    paths = {
        base + _KINDS[kind].path: {
            "post": _operation(
                model, kind=kind, prefix=prefix, example=shown, rows=len(instances)
            )
        }
        for kind in kinds
    }
    return paths, _component_schemas(model, kinds, prefix=prefix), parts


def tag(model: PublishedModel) -> dict[str, str]:
    """Describe the model as the tag of its operations."""
    facts = [f"Version {model.described.version}"]
    if model.described.aliases:
        facts[0] += f" ({', '.join(model.described.aliases)})"
    facts += [f"version {it} answers a share as canary" for it in model.canaries]
    told = (model.description, " ".join(_told_ending(model)), "; ".join(facts) + ".")
    return {
        "name": model.name,
        "description": "\n\n".join(part for part in told if part),
    }


class _Kind(msgspec.Struct, frozen=True):
    path: str
    summary: str
    description: str


_KINDS = {
    "Predict": _Kind(
        "/predict",
        "Predict with {}",
        "Answers every instance, in order. One bad instance refuses them all.",
    ),
    "PredictBatch": _Kind(
        "/predict/batch",
        "Predict many rows with {}",
        "As predict, for more rows. With `return_errors: individual` the good rows are "
        "answered, `predictions` is `null` at the bad ones and `errors` says why.",
    ),
    "Explain": _Kind(
        "/explain",
        "Explain {}",
        "Answers every instance with its SHAP values: what each feature added to the "
        "base value to make the prediction.",
    ),
    "Embed": _Kind(
        "/embed", "Embed with {}", "Answers every instance with its vector."
    ),
}
# Endings of the names of a model's own components; none is the end of another.
_ENDINGS = (
    "Instance",
    "Prediction",
    *(f"{kind}{part}" for kind in _KINDS for part in ("Request", "Answer")),
)


def _kinds(model: PublishedModel) -> list[str]:
    kinds = ["Predict", "PredictBatch"]
    if model.explainable:
        kinds.append("Explain")
    if model.described.signature.task is Task.EMBEDDING:
        kinds.append("Embed")
    return kinds


def _operation(
    model: PublishedModel,
    *,
    kind: str,
    prefix: str,
    example: dict[str, Any] | None,
    rows: int,
) -> dict[str, Any]:
    signature = model.described.signature
    answer: dict[str, Any] = {"schema": reference(_answer_name(kind, prefix))}
    if rows:
        answer["examples"] = {
            "form": {
                "summary": "The form of an answer; its numbers are made up",
                "value": _example_answer(model, rows=rows, kind=kind),
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
        reference(name, "parameters") for name in _REQUEST_PARAMETERS
    ]
    if not model.pinned:
        parameters.append(reference("ModelVersion", "parameters"))
    if kind == "Predict" and model.explainable:
        parameters.append(reference("Explain", "parameters"))
    return {
        "operationId": f"{prefix[0].lower()}{prefix[1:]}{kind}",
        "tags": [model.name],
        "summary": _KINDS[kind].summary.format(model.name),
        "description": " ".join(
            [*_told_ending(model), _KINDS[kind].description, *_notes(signature)]
        ),
        **({"deprecated": True} if model.ending is not None else {}),
        "parameters": parameters,
        "security": common.SECURITY,
        "requestBody": {
            "required": True,
            "content": request_bodies.request_content(
                signature,
                kind=kind,
                schema=reference(f"{prefix}{kind}Request"),
                example=example,
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


def _answer_name(kind: str, prefix: str) -> str:
    # All models share one schema for vectors.
    return "EmbedAnswer" if kind == "Embed" else f"{prefix}{kind}Answer"


def _told_ending(model: PublishedModel) -> list[str]:
    if model.ending is None:
        return []
    ends_at = datetime.fromtimestamp(model.ending.ends_at, UTC)
    return [
        f"It ends at {ends_at:%Y-%m-%d %H:%M} UTC; from then on calls get 410.",
        *filter(None, [model.ending.use_instead]),
    ]


def _notes(signature: Signature) -> list[str]:
    """Return facts that a schema cannot express."""
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


def _component_schemas(
    model: PublishedModel, kinds: list[str], *, prefix: str
) -> dict[str, Any]:
    signature = model.described.signature
    parameters = None
    if signature.params:
        parameters = request_bodies.parameters_schema(signature.params)
    own = {
        "Instance": schemas.instance_schema(signature),
        "Prediction": described(schemas.prediction_schema(signature), "Prediction"),
    }
    for kind in kinds:
        own[f"{kind}Request"] = described(
            shared_schemas.request(
                kind, instance=reference(f"{prefix}Instance"), parameters=parameters
            ),
            f"{kind}Request",
        )
        if kind != "Embed":
            own[f"{kind}Answer"] = described(
                shared_schemas.answer(
                    kind,
                    prediction=reference(f"{prefix}Prediction"),
                    explained=kind == "Explain"
                    or (kind == "Predict" and model.explainable),
                ),
                f"{kind}Answer",
            )
    return {f"{prefix}{name}": schema for name, schema in own.items()}


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
        "request_id": common.EXAMPLE_REQUEST_ID,
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
