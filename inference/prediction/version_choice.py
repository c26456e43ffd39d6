"""Find the model and the version for a call, from its path, headers and body."""

from typing import Any

import msgspec

from inference.codecs.strict_json import parse_object
from inference.dialects.dialect import Call
from inference.errors import refusals
from inference.errors.api_error import ApiError, ErrorCode
from inference.snapshot.keys import KeyEntry
from inference.snapshot.tables import Tables
from inference.snapshot.targets import ModelEntry, Target


class _NamedModel(msgspec.Struct):
    model: str | None = None


_named_model = msgspec.json.Decoder(_NamedModel)


def find_model(tables: Tables, name: str, entry: KeyEntry) -> ModelEntry:
    """Find a model that the key may call; raises ApiError NOT_FOUND."""
    model = tables.models.get(name)
    if model is None or (entry.models is not None and name not in entry.models):
        raise ApiError(ErrorCode.NOT_FOUND, refusals.NO_MODEL)
    return model


def model_of_body(
    tables: Tables, call: Call, body: bytes, entry: KeyEntry
) -> ModelEntry:
    """Find the model that the body names, or the site's default."""
    name: Any = None
    if call.head.other_content_type is None:
        try:
            name = _named_model.decode(body).model
        except (ValueError, RecursionError):
            name = parse_object(body).get("model")
    name = name or tables.site_default_model
    if not isinstance(name, str):
        message = "This site has no default model. Name one as `model`."
        raise ApiError(ErrorCode.NOT_FOUND, message)
    return find_model(tables, name, entry)


def choose_target(call: Call, model: ModelEntry) -> Target:
    """Choose the version that answers: the one asked for, or the route's choice.

    Raises ApiError NOT_FOUND, or MODEL_UNAVAILABLE while nothing is served.
    """
    version = call.named_version
    if version is not None:
        target = model.named(version)
        if target is None and version in model.model.broken:
            raise refusals.broken()
        if target is None:
            raise ApiError(ErrorCode.NOT_FOUND, refusals.NO_MODEL)
    elif call.head.sticky_key is not None:
        target = model.pinned(call.head.sticky_key)
    else:
        target = model.next()
    if target is None:
        raise refusals.not_served_because(model.model.stuck)
    return target
