"""Find the model and the version for a call, from its path, headers and body."""

from typing import Any

import msgspec

from inference.codecs.strict_json import parse_object
from inference.dialects.dialect import Call
from inference.errors import refusals
from inference.errors.api_error import ApiError, ErrorCode
from inference.prediction.stages import KnownCall
from inference.snapshot.keys import KeyEntry
from inference.snapshot.tables import Tables
from inference.snapshot.targets import ModelEntry, Target
from registry.routing import name_unit


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


def choose_target(known: KnownCall, model: ModelEntry) -> Target:
    """Choose the version that answers: the one asked for, or the route's choice.

    Raises ApiError NOT_FOUND, or MODEL_UNAVAILABLE while nothing is served.
    """
    call = known.call
    version = call.named_version
    if version is not None:
        target = model.named(version)
        if target is None and version in model.model.broken:
            raise refusals.broken()
        if target is None:
            raise ApiError(ErrorCode.NOT_FOUND, refusals.NO_MODEL)
    elif model.sticks_to_keys:
        target = _pin(known, model, known.entry.key.key_id)
    elif call.head.sticky_key is not None:
        target = _pin(known, model, call.head.sticky_key)
    else:
        target = model.only or _deal(known, model)
    if target is None:
        raise refusals.not_served_because(model.model.stuck)
    known.target = target
    if target.ending is not None:
        refusals.require_not_ended(target.ending, known.now)
    return target


def _deal(known: KnownCall, model: ModelEntry) -> Target | None:
    """Choose by the route's weights, and note the chances that the call had."""
    target, known.chance, known.others = model.next()
    # By its time alone, so that no side is preferred.
    known.is_compared = known.entry.is_first_of_second(known.now)
    known.to_canary = target is not None and target.variant == "canary"
    known.canary = model.canary
    if target is not None and known.to_canary:
        known.canary = target.key.version
    return target


def _pin(known: KnownCall, model: ModelEntry, sticky_key: str) -> Target | None:
    """Choose the version that a sticky caller keeps; it is evidence with a salt."""
    target = model.pinned(sticky_key)
    sticky = model.model.sticky
    if target is None or not model.canary or sticky is None:
        return target
    known.chance, known.others = model.chances_of(target.key.version)
    known.to_canary = target.variant == "canary"
    known.canary = target.key.version if known.to_canary else model.canary
    known.unit = name_unit(sticky.salt, sticky_key)
    known.is_compared = known.entry.is_first_of_second(known.now)
    return target
