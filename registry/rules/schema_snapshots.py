"""Write the contracts of all routes as one JSON text, and tell what broke since."""

import json
from collections.abc import Mapping
from typing import NamedTuple

import msgspec

from registry.rules import schema_changes
from registry.rules.contracts import Contract
from registry.rules.schema_changes import Change

_FORMAT = 1


class _Snapshot(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    format: int
    # By the name of the model.
    models: dict[str, Contract]


class ModelChange(NamedTuple):
    model: str
    change: Change


def write(contracts: Mapping[str, Contract]) -> str:
    """Return a text that is the same for the same contracts, a line for each value."""
    snapshot = _Snapshot(_FORMAT, dict(contracts))
    return (
        json.dumps(
            msgspec.to_builtins(snapshot), indent=2, sort_keys=True, ensure_ascii=False
        )
        + "\n"
    )


def read(text: str) -> dict[str, Contract]:
    """Return the contracts of a text that `write` returned; raises ValueError."""
    try:
        snapshot = msgspec.json.decode(text, type=_Snapshot)
    except msgspec.MsgspecError as error:
        raise ValueError(f"This is not a schema snapshot: {error}.") from error
    if snapshot.format != _FORMAT:
        raise ValueError(f"Its format is {snapshot.format}, not {_FORMAT}.")
    return snapshot.models


def compare(
    published: Mapping[str, Contract], now: Mapping[str, Contract]
) -> list[ModelChange]:
    """Return what callers would notice of all routes, by the name of the model."""
    found = []
    for model in sorted(published.keys() | now.keys()):
        if model not in now:
            changes = [Change("breaking", "The model has no route that is on.")]
        elif model not in published:
            changes = [Change("additive", "The model is new.")]
        else:
            changes = schema_changes.compare(published[model], now[model])
        found += [ModelChange(model, change) for change in changes]
    return found
