"""JSON Schemas of requests and answers that all models share. Without I/O.

`inference.api.openapi.descriptions` explains each property.
"""

from typing import Any

from inference.errors.api_error import ErrorCode

JsonSchema = dict[str, Any]


def reference(name: str, kind: str = "schemas") -> dict[str, str]:
    return {"$ref": f"#/components/{kind}/{name}"}


def json_body(*names: str) -> dict[str, JsonSchema]:
    """Describe a body that has one of these forms, for a view."""
    forms = [reference(name) for name in names]
    return {"application/json": forms[0] if len(forms) == 1 else {"oneOf": forms}}


def array(items: JsonSchema, **more: Any) -> JsonSchema:
    return {"type": "array", "items": items, **more}


def closed(properties: JsonSchema, *, required: tuple[str, ...] = ()) -> JsonSchema:
    """Describe an object that refuses other members."""
    return {**opened(properties, required=required), "additionalProperties": False}


def opened(properties: JsonSchema, *, required: tuple[str, ...] = ()) -> JsonSchema:
    """Describe an object that may have other members, now or later."""
    schema: JsonSchema = {"type": "object", "properties": properties}
    if required:
        schema["required"] = list(required)
    return schema


# `inference.codecs.options` reads these.
_TIMEOUT = {"timeout_ms": {"type": "integer", "minimum": 1, "maximum": 3_600_000}}
_TOP_K = {"top_k": {"type": "integer", "minimum": 1, "maximum": 1000}}
_BATCH_SIZE = {"batch_size": {"type": "integer", "minimum": 1, "maximum": 100_000}}
_PREDICT_OPTIONS = closed(_TIMEOUT | _TOP_K)
_BATCH_OPTIONS = closed(
    _TIMEOUT
    | _TOP_K
    | _BATCH_SIZE
    | {
        "return_errors": {
            "type": "string",
            "enum": ["fail", "individual"],
            "default": "fail",
        }
    }
)
_EXPLAIN_OPTIONS = closed(
    _TIMEOUT
    | _TOP_K
    | {
        "level": {"type": "string", "enum": ["simple", "full"]},
        "method": {
            "type": "string",
            "pattern": "^[a-z_]+$",
            "maxLength": 40,
            "default": "auto",
        },
        "samples": {"type": "integer", "minimum": 1, "maximum": 1_000_000},
        "target": {"type": ["string", "integer"]},
        "seed": {"type": "integer", "minimum": 0, "maximum": 2**32 - 1, "default": 0},
    }
)
_EMBED_OPTIONS = closed(
    _TIMEOUT
    | {
        "normalize": {"type": "boolean", "default": False},
        "encoding_format": {
            "type": "string",
            "enum": ["float", "base64"],
            "default": "float",
        },
    }
)
_ANYTHING: JsonSchema = {}
OBJECT: JsonSchema = {"type": "object", "additionalProperties": True}
_NAMED_MODEL = {"model": {"type": "string"}}
_URI = {"input_uri": {"type": "string"}}


def request(
    kind: str,
    *,
    instance: JsonSchema = _ANYTHING,
    parameters: JsonSchema | None = OBJECT,
    more: JsonSchema | None = None,
) -> JsonSchema:
    """Describe a body with instances; `parameters` None: the model has none."""
    properties = {
        **(more or {}),
        "instances": array(instance, minItems=1),
        "options": reference(f"{kind}Options"),
    }
    if parameters is not None:
        properties["parameters"] = parameters
    return closed(properties, required=("instances",))


def _uploaded(kind: str) -> JsonSchema:
    """Describe a body whose instances were uploaded before."""
    properties = {
        **_NAMED_MODEL,
        **_URI,
        "options": reference(f"{kind}Options"),
        "parameters": OBJECT,
    }
    return closed(properties, required=("input_uri",))


def answer(
    kind: str, *, prediction: JsonSchema = _ANYTHING, explained: bool = True
) -> JsonSchema:
    """Describe an answer; `explained`: it may hold explanations."""
    predictions = prediction
    if kind == "PredictBatch" and prediction:
        predictions = {"anyOf": [prediction, {"type": "null"}]}
    properties: JsonSchema = {
        "predictions": array(predictions),
        "model": reference("AnsweringModel"),
        "request_id": {"type": "string"},
        "warnings": array(reference("Warning")),
    }
    required: tuple[str, ...] = ("predictions", "model", "request_id")
    if kind == "PredictBatch":
        properties["errors"] = array(reference("Problem"))
    if explained:
        properties["explanations"] = array(reference("Explanation"))
    if kind == "Explain":
        required = (*required, "explanations")
    return opened(properties, required=required)


_JOB_MEMBERS = {
    **_NAMED_MODEL,
    "version": {"type": ["string", "integer"]},
    "options": reference("PredictBatchOptions"),
}

# `inference.feedback.items` reads these.
_SCALAR: JsonSchema = {"type": ["string", "number", "boolean"], "maxLength": 200}
_FEEDBACK_NAMES: JsonSchema = {
    "request_id": {"type": "string", "pattern": "^[A-Za-z0-9._:-]{1,128}$"},
    "index": {
        "type": "integer",
        "minimum": 0,
        "maximum": 2**31 - 1,
        "default": 0,
        "description": "The position among the call's instances that were answered: "
        "in a batch with errors of single rows, those with an error do not count.",
    },
}
_FEEDBACK = closed(
    {
        **_FEEDBACK_NAMES,
        "label": _SCALAR,
        "prediction": _SCALAR
        | {"description": "What the call predicted; only with `label`."},
        "value": {"type": "number"},
        "score": {"type": "number", "minimum": 0, "maximum": 1},
        "rating": {"type": "string", "enum": ["up", "down"]},
    },
    required=("request_id",),
) | {
    "description": "At least one of `label`, `value`, `score` and `rating`; "
    "`prediction` only with `label`, and `label` only with it."
}
_FEEDBACK_MODEL = reference("FeedbackModel")

SCHEMAS: dict[str, JsonSchema] = {
    "FeedbackRequest": _FEEDBACK,
    "FeedbackListRequest": closed(
        {"feedback": array(reference("FeedbackRequest"), minItems=1, maxItems=100)},
        required=("feedback",),
    ),
    "FeedbackModel": opened(
        {"name": {"type": "string"}, "version": {"type": "string"}},
        required=("name", "version"),
    ),
    "FeedbackAnswer": opened(
        {
            "request_id": {"type": "string"},
            "index": {"type": "integer"},
            "model": _FEEDBACK_MODEL,
        },
        required=("request_id", "index", "model"),
    ),
    "FeedbackListAnswer": opened(
        {"data": array(reference("FeedbackResult"))}, required=("data",)
    ),
    "FeedbackResult": opened(
        {
            "request_id": {"type": ["string", "null"]},
            "index": {"type": ["integer", "null"]},
            "model": _FEEDBACK_MODEL,
            "error": opened(
                {
                    "code": {
                        "type": "string",
                        "enum": [code.value for code in ErrorCode],
                    },
                    "message": {"type": "string"},
                },
                required=("code", "message"),
            ),
        },
        required=("request_id", "index"),
    ),
    "PredictOptions": _PREDICT_OPTIONS,
    "PredictBatchOptions": _BATCH_OPTIONS,
    "ExplainOptions": _EXPLAIN_OPTIONS,
    "EmbedOptions": _EMBED_OPTIONS,
    **{
        f"{kind}Request": request(kind)
        for kind in ("Predict", "PredictBatch", "Explain", "Embed")
    },
    **{
        f"{kind}DefaultModelRequest": request(kind, more=_NAMED_MODEL)
        for kind in ("Predict", "PredictBatch")
    },
    **{
        f"{kind}UploadedRequest": _uploaded(kind)
        for kind in ("Predict", "PredictBatch", "Explain", "Embed")
    },
    # Exactly one of the first four members.
    "InvocationsRequest": opened(
        {
            "dataframe_split": opened(
                {
                    "columns": array({"type": "string"}),
                    "index": array(_ANYTHING),
                    "data": array(array(_ANYTHING)),
                },
                required=("data",),
            ),
            "dataframe_records": array(OBJECT),
            "instances": _ANYTHING,
            "inputs": _ANYTHING,
            "params": OBJECT,
        }
    ),
    "SubmitJobRequest": closed(
        {**_JOB_MEMBERS, "instances": array(_ANYTHING, minItems=1)},
        required=("model", "instances"),
    ),
    "SubmitUploadedJobRequest": closed(
        {**_JOB_MEMBERS, **_URI}, required=("model", "input_uri")
    ),
    "SubmitJobForm": closed(
        {
            **_NAMED_MODEL,
            "version": {"type": "string"},
            "file": {"type": "string", "format": "binary"},
            "options": {"type": "string"},
        },
        required=("model", "file"),
    ),
    **{
        f"{kind}Answer": answer(kind, explained=kind != "PredictBatch")
        for kind in ("Predict", "PredictBatch", "Explain")
    },
    "EmbedAnswer": opened(
        {
            "embeddings": array(
                {"anyOf": [array({"type": ["number", "null"]}), {"type": "string"}]}
            ),
            "dimension": {"type": "integer"},
            "model": reference("AnsweringModel"),
            "request_id": {"type": "string"},
            "warnings": array(reference("Warning")),
        },
        required=("embeddings", "dimension", "model", "request_id"),
    ),
    "InvocationsAnswer": opened({"predictions": _ANYTHING}, required=("predictions",)),
    "AnsweringModel": opened(
        {
            "name": {"type": "string"},
            # Null in a fixed answer of a fallback.
            "version": {"type": ["string", "null"]},
            "variant": {"type": "string"},
            "alias": {"type": ["string", "null"]},
            "fallback": {"type": "boolean"},
            "fallback_reason": {"type": "string"},
        },
        required=("name", "version", "variant"),
    ),
    "Warning": opened(
        {"index": {"type": "integer"}, "code": {"type": "string"}},
        required=("index", "code"),
    ),
    "Explanation": opened(
        {
            "method": {"type": "string"},
            "level": {"type": "string", "enum": ["simple", "full"]},
            "base_value": {"type": "number"},
            "target": {"type": ["string", "integer", "null"]},
            "samples": {"type": "integer", "minimum": 0},
            "features": array(reference("Attribution")),
            "additivity_residual": {"type": "number"},
        },
        required=(
            "method",
            "level",
            "base_value",
            "target",
            "samples",
            "features",
            "additivity_residual",
        ),
    ),
    "Attribution": opened(
        {
            "feature": {"type": "string"},
            "value": {"type": ["number", "string", "boolean", "null"]},
            "attribution": {"type": "number"},
        },
        required=("feature", "value", "attribution"),
    ),
    "Problem": opened(
        {
            "index": {"type": "integer"},
            "field": {"type": "string"},
            "issue": {"type": "string"},
            "received": {"type": "string"},
            "code": {"type": "string", "enum": [code.value for code in ErrorCode]},
        },
        required=("issue",),
    ),
}
