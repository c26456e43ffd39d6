"""Check the `options` of a request."""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from inference.codecs.rows.nested import exact_integer
from inference.codecs.rows.values import readable_name
from inference.errors.api_error import Problem
from inference.errors.problems import MAX_PROBLEMS, problem

MAX_TIMEOUT_MS = 3_600_000


class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The `options` member of a request; None means not given."""

    top_k: Annotated[int, Meta(ge=1, le=1000)] | None = None
    timeout_ms: Annotated[int, Meta(ge=1, le=MAX_TIMEOUT_MS)] | None = None
    # Batches only.
    batch_size: Annotated[int, Meta(ge=1, le=100_000)] | None = None
    return_errors: Literal["fail", "individual"] = "fail"
    # Explanations only.
    level: Literal["simple", "full"] | None = None
    method: Annotated[str, Meta(max_length=40, pattern="^[a-z_]+$")] = "auto"
    samples: Annotated[int, Meta(ge=1, le=1_000_000)] | None = None
    target: (
        Annotated[str, Meta(max_length=1000)]
        | Annotated[int, Meta(ge=0, le=2**31 - 1)]
        | None
    ) = None
    seed: Annotated[int, Meta(ge=0, le=2**32 - 1)] = 0
    # Embeddings only; "base64" holds float32 in little endian.
    normalize: bool = False
    encoding_format: Literal["float", "base64"] = "float"


NO_OPTIONS = Options()

_ISSUES = {
    "top_k": "must be an integer from 1 to 1000",
    "timeout_ms": f"must be an integer from 1 to {MAX_TIMEOUT_MS}",
    "batch_size": "must be an integer from 1 to 100000",
    "return_errors": 'must be "fail" or "individual"',
    "level": 'must be "simple" or "full"',
    "method": "must be the name of an explanation method",
    "samples": "must be an integer from 1 to 1000000",
    "target": "must be a label or the index of a class",
    "seed": "must be an integer from 0 to 4294967295",
    "normalize": "must be true or false",
    "encoding_format": 'must be "float" or "base64"',
}


def read_options(given: Any) -> tuple[Options, list[Problem]]:
    """Return the options of a parsed request, and what is wrong with them."""
    if given is None:
        return NO_OPTIONS, []
    if not isinstance(given, dict):
        return NO_OPTIONS, [problem("options", "must be an object")]
    problems: list[Problem] = []
    # In JSON Schema, and so in our OpenAPI document, 85.0 is an integer too.
    given = {name: exact_integer(value) for name, value in given.items()}
    for name, value in given.items():
        if len(problems) >= MAX_PROBLEMS:
            break
        field = f"options.{readable_name(name)}"
        if name not in _ISSUES:
            problems.append(problem(field, "is not an option"))
            continue
        try:
            msgspec.convert({name: value}, Options)
        except msgspec.ValidationError:
            problems.append(problem(field, _ISSUES[name]))
    if problems:
        return NO_OPTIONS, problems
    return msgspec.convert(given, Options), []
