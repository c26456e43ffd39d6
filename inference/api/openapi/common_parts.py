"""The parts of the OpenAPI document that all operations share. Without I/O."""

from typing import Any, get_args

from accounts.admission.limits import Source
from inference.errors.advice import ADVICE, codes_of
from inference.errors.api_error import STATUS, ErrorCode
from inference.errors.rendering import docs_of

# Statuses that any keyed operation can answer, and those of calls with a body.
COMMON_STATUSES: tuple[int, ...] = (401, 403, 404, 406, 429, 500, 503)
BODY_STATUSES: tuple[int, ...] = (400, 408, 413, 415, 422)
# 409 and 410: an uploaded file was created but not sent, or has expired.
PREDICTION_STATUSES: tuple[int, ...] = (
    *COMMON_STATUSES,
    *BODY_STATUSES,
    409,
    410,
    504,
)

SECURITY: list[dict[str, list[str]]] = [{"bearer": []}, {"apiKey": []}]

SECURITY_SCHEMES: dict[str, Any] = {
    "bearer": {
        "type": "http",
        "scheme": "bearer",
        "description": "`Authorization: Bearer my_live_…`",
    },
    "apiKey": {
        "type": "apiKey",
        "in": "header",
        "name": "X-API-Key",
        "description": "The same key in a header of its own.",
    },
}


def _header(description: str, kind: str) -> dict[str, Any]:
    return {"description": description, "schema": {"type": kind}}


HEADERS: dict[str, Any] = {
    "X-Request-Id": _header("Names this request; quote it when you ask us.", "string"),
    "X-RateLimit-Limit": _header("The limit nearest to exhaustion.", "integer"),
    "X-RateLimit-Remaining": _header("What is left of that limit.", "integer"),
    "X-RateLimit-Reset": _header(
        "When that limit starts anew, in seconds since the epoch.", "integer"
    ),
    "RateLimit-Policy": _header(
        'All limits: `"burst";q=20;w=1, "sustained";q=300;w=60`.', "string"
    ),
    "RateLimit": _header(
        'What is left of the nearest one: `"sustained";r=247;t=34`.', "string"
    ),
    "Retry-After": _header("Seconds to wait before the next try.", "integer"),
    "X-Model-Version": _header("The version that answered.", "string"),
    "X-Cache": _header("`hit` or `miss`, on routes that cache predictions.", "string"),
    "X-Fallback": _header(
        "`version` or `fixed`: what stood in for the version in charge. Absent "
        "otherwise.",
        "string",
    ),
    "Server-Timing": _header(
        "Milliseconds in the queue, in the model and in total.", "string"
    ),
    "Deprecation": _header(
        "Of a model or version that ends: `@` and since when, in seconds since the "
        "epoch (RFC 9745). Absent otherwise.",
        "string",
    ),
    "Sunset": _header(
        "Of a model or version that ends: when it is refused (RFC 8594). Absent "
        "otherwise.",
        "string",
    ),
    "Link": _header(
        "Of a model or version that ends: the page about it, with "
        '`rel="deprecation"`. Absent otherwise.',
        "string",
    ),
}

_ON_EVERY_ANSWER = ("X-Request-Id",)
_ON_KEYED_ANSWERS = (
    "X-RateLimit-Limit",
    "X-RateLimit-Remaining",
    "X-RateLimit-Reset",
    "RateLimit-Policy",
    "RateLimit",
)
_ON_PREDICTIONS = ("X-Model-Version", "X-Cache", "X-Fallback", "Server-Timing")
_ON_ANSWERS_ABOUT_A_MODEL = ("Deprecation", "Sunset", "Link")
_RETRY_STATUSES = (429, 503)

PARAMETERS: dict[str, Any] = {
    "RequestId": {
        "name": "X-Request-Id",
        "in": "header",
        "description": "Your own name for this request: 1 to 128 letters, digits, "
        "`._:-`; returned and logged. Any other is replaced by ours.",
        "schema": {"type": "string"},
    },
    "ModelVersion": {
        "name": "X-Model-Version",
        "in": "header",
        "description": "A version or an alias, instead of what the route chooses.",
        "schema": {"type": "string"},
    },
    "DeadlineMs": {
        "name": "X-Deadline-Ms",
        "in": "header",
        "description": "Shortens the deadline.",
        "schema": {"type": "integer", "minimum": 1},
    },
    "StickyKey": {
        "name": "X-Sticky-Key",
        "in": "header",
        "description": "Calls with the same key get the same variant.",
        "schema": {"type": "string"},
    },
    "ModelName": {
        "name": "model",
        "in": "path",
        "required": True,
        "description": "Name of the model.",
        "schema": {"type": "string"},
    },
    "VersionName": {
        "name": "version",
        "in": "path",
        "required": True,
        "description": "Number of the version, or an alias.",
        "schema": {"type": "string"},
    },
    "Explain": {
        "name": "explain",
        "in": "query",
        "description": "Also explain each prediction, at level `simple`.",
        "schema": {"type": "boolean", "default": False},
    },
}

# Members of an error about a limit: accounts.admission.limits.ReachedLimit.
_LIMIT_PROPERTIES: dict[str, Any] = {
    "limit": {"type": "string"},
    "scope": {"type": "string"},
    "source": {"type": "string", "enum": list(get_args(Source))},
    "unit": {"type": "string"},
    "maximum": {"type": "integer"},
    "used": {"type": "integer"},
    "needed": {"type": "integer"},
    "window_s": {"type": "integer"},
    "resets_at": {"type": "string", "format": "date-time"},
    "retry_after_s": {"type": "integer"},
}

ERROR_SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["code", "message", "request_id", "timestamp", "docs"],
            "properties": {
                "code": {"type": "string", "enum": [code.value for code in ErrorCode]},
                "message": {"type": "string"},
                "details": {
                    "type": "array",
                    "items": {"$ref": "#/components/schemas/Problem"},
                },
                **_LIMIT_PROPERTIES,
                "reason": {
                    "type": "string",
                    "description": "Of 401: `missing` or `malformed` (mistyped, by its"
                    " checksum); `expired`, `revoked` or `inactive` for the whole key"
                    " only.",
                },
                "request_id": {"type": "string"},
                "timestamp": {"type": "string", "format": "date-time"},
                "docs": {"type": "string"},
            },
        }
    },
}

PROBLEM_DETAILS_SCHEMA: dict[str, Any] = {
    "type": "object",
    "description": "RFC 9457: the same facts, asked for by Accept.",
    "required": ["type", "title", "status", "detail", "code", "request_id"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        **ERROR_SCHEMA["properties"]["error"]["properties"],
    },
}
MLFLOW_ERROR_SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["error_code", "message"],
    "properties": {
        "error_code": {"type": "string"},
        "message": {"type": "string"},
    },
}
del PROBLEM_DETAILS_SCHEMA["properties"]["message"]

SCHEMAS: dict[str, Any] = {
    "Error": ERROR_SCHEMA,
    "ProblemDetails": PROBLEM_DETAILS_SCHEMA,
    "MlflowError": MLFLOW_ERROR_SCHEMA,
}

EXAMPLE_REQUEST_ID = "req_01JZ8Q6K3V9T4X2N7B5M0C1D2E"
_EXAMPLE_ERROR_FACTS = {
    "request_id": EXAMPLE_REQUEST_ID,
    "timestamp": "2026-11-20T10:30:00Z",
}


def answer_headers(
    *, prediction: bool = False, about_a_model: bool = False
) -> dict[str, Any]:
    """Return references to the headers of answers to calls with a key."""
    names = [*_ON_EVERY_ANSWER, *_ON_KEYED_ANSWERS]
    if prediction:
        names += _ON_PREDICTIONS
    if prediction or about_a_model:
        names += _ON_ANSWERS_ABOUT_A_MODEL
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


def response_name(status: int) -> str:
    return f"Error{status}"


def error_responses(statuses: tuple[int, ...]) -> dict[str, Any]:
    """Return references to the shared error responses, by status."""
    return {
        str(status): {"$ref": f"#/components/responses/{response_name(status)}"}
        for status in sorted(statuses)
    }


def mlflow_error_responses(statuses: tuple[int, ...]) -> dict[str, Any]:
    """Describe errors of MLflow's scoring protocol, which have its own form."""
    return {
        str(status): {
            "description": description_of(status),
            "content": {
                "application/json": {
                    "schema": {"$ref": "#/components/schemas/MlflowError"}
                }
            },
        }
        for status in sorted(statuses)
    }


def components() -> dict[str, Any]:
    """Return the components that `error_responses` and `answer_headers` refer to."""
    return {
        "headers": HEADERS,
        "parameters": PARAMETERS,
        "responses": {
            response_name(status): _error_response(status)
            for status in sorted({*STATUS.values()})
        },
        "securitySchemes": SECURITY_SCHEMES,
    }


def description_of(status: int) -> str:
    """Return the codes of a status as text; the page about errors explains them."""
    codes = [f"`{code}`" for code in codes_of(status)]
    return f"{', '.join(codes[:-1])} or {codes[-1]}" if codes[1:] else codes[0]


def _error_response(status: int) -> dict[str, Any]:
    codes = codes_of(status)
    names = list(_ON_EVERY_ANSWER)
    if status != 401:
        names += _ON_KEYED_ANSWERS
    if status in _RETRY_STATUSES:
        names.append("Retry-After")
    return {
        "description": description_of(status),
        "headers": {name: {"$ref": f"#/components/headers/{name}"} for name in names},
        "content": {
            "application/json": {
                "schema": {"$ref": "#/components/schemas/Error"},
                "examples": {code.value: _example(code) for code in codes},
            },
            "application/problem+json": {
                "schema": {"$ref": "#/components/schemas/ProblemDetails"}
            },
        },
    }


def _example(code: ErrorCode) -> dict[str, Any]:
    error: dict[str, Any] = {"code": code.value, "message": ADVICE[code].when}
    if code is ErrorCode.INVALID_INPUT:
        error["message"] = "1 field is invalid."
        error["details"] = [
            {
                "index": 0,
                "field": "mean radius",
                "issue": "must be a number",
                "received": "string",
            }
        ]
    error.update(_EXAMPLE_ERROR_FACTS)
    error["docs"] = docs_of(code)
    return {"summary": ADVICE[code].when, "value": {"error": error}}
