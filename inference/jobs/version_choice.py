"""Choose the version that a job uses, from those that gateways may serve now."""

import time

import msgspec

from inference.api import driver
from inference.engine.signatures.signature import Signature
from inference.errors import refusals
from inference.errors.api_error import ApiError, ErrorCode
from inference.jobs.life_cycle import JobTarget
from inference.snapshot.contents import CallableModel, CallableVersion
from inference.snapshot.targets import PUBLISHED
from registry.routing import choose_pinned


def choose(
    name: str,
    *,
    version: str | None,
    sticky_key: str,
    key_id: str,
    allowed_models: tuple[str, ...],
) -> JobTarget:
    """Return the requested version, or one that the route's weights choose.

    `version` is a number or an alias. A route that is sticky by API key deals by
    `key_id`, as gateways do. Raises ApiError: NOT_FOUND, also for models that
    the key may not call; MODEL_UNAVAILABLE while nothing is served.
    """
    model = _find(name, allowed_models=allowed_models)
    ending = model.ending
    if version is not None:
        chosen = _named(model, version)
        ending = model.ending_of(chosen)
    elif model.variants:
        if model.sticky is not None and model.sticky.by == "key":
            sticky_key = key_id
        variant = choose_pinned(model.variants, salt=model.salt, sticky_key=sticky_key)
        chosen = next(one for one in model.versions if one.version == variant.version)
    elif model.stuck:
        raise refusals.not_served_because(model.stuck)
    else:
        raise ApiError(
            ErrorCode.MODEL_UNAVAILABLE,
            f"Model {name!r} is not ready yet.",
            retry_after_s=5.0,
        )
    if ending is not None:
        refusals.require_not_ended(ending, time.time())
    if chosen.quarantined:
        raise refusals.quarantined()
    return JobTarget(
        model=name,
        version=chosen.version,
        variant=_variant(model, chosen.version),
        signature=_signature(model, chosen),
        ending=ending,
    )


def _find(name: str, *, allowed_models: tuple[str, ...]) -> CallableModel:
    visible = not allowed_models or name in allowed_models
    tables = driver.current().refresh()
    if not tables.sequence:
        raise ApiError(
            ErrorCode.MODEL_UNAVAILABLE,
            "The models are not ready yet.",
            retry_after_s=5.0,
        )
    entry = tables.models.get(name)
    if entry is None or not visible:
        raise ApiError(ErrorCode.NOT_FOUND, "There is no such model.")
    return entry.model


def _named(model: CallableModel, version: str) -> CallableVersion:
    # An alias may look like another version's number; the number wins.
    found = [one for one in model.versions if version == str(one.version)]
    found += [one for one in model.versions if version in one.aliases]
    if not found and version in model.broken:
        raise refusals.broken()
    if not found:
        raise ApiError(ErrorCode.NOT_FOUND, "There is no such version to call.")
    return found[0]


def _variant(model: CallableModel, version: int) -> str:
    roles = [one.role for one in model.variants if one.version == version]
    return roles[0] if roles else PUBLISHED


def _signature(model: CallableModel, version: CallableVersion) -> Signature:
    if model.low_confidence_below is None:
        return version.signature
    return msgspec.structs.replace(
        version.signature, low_confidence_below=model.low_confidence_below
    )
