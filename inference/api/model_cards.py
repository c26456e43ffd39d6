"""Describe models as `GET /api/v1/models` does. Without I/O."""

from datetime import UTC, datetime
from typing import Any

import msgspec

from accounts.admission.limits import Limits
from inference.api.openapi.typed_operations import can_explain
from inference.engine.signatures.signature import Column, Layout, Signature
from inference.snapshot.contents import CallableModel, CallableVersion, Ending


def summary(model: CallableModel) -> dict[str, Any]:
    """Describe a model in a list."""
    shown = _shown(model)
    default = default_version(model)
    return {
        "name": model.name,
        "description": model.description,
        "task": shown.signature.task if shown else None,
        "default_version": None if default is None else str(default),
        "versions": [
            {
                "version": str(version.version),
                "aliases": list(version.aliases),
                **_ending(model.ending_of(version)),
            }
            for version in model.versions
        ],
    }


def _ending(ending: Ending | None) -> dict[str, str | None]:
    if ending is None:
        return {"deprecated_at": None, "sunset_at": None, "use_instead": None}
    return {
        "deprecated_at": _time(ending.deprecated_at),
        "sunset_at": _time(ending.ends_at),
        "use_instead": ending.use_instead,
    }


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()


def card(model: CallableModel, limits: Limits) -> dict[str, Any]:
    """Describe a model with the signature of the version that answers by default."""
    shown = _shown(model)
    return summary(model) | {
        "signature": _signature(shown.signature) if shown else None,
        "rules": _rules(shown.signature) if shown else {},
        "example": shown.example if shown else None,
        "explainable": shown is not None and can_explain(shown.signature),
        "limits": {
            "max_predict_rows": limits.max_predict_rows,
            "max_batch_rows": limits.max_batch_rows,
            "max_job_rows": limits.max_job_rows,
        },
    }


def default_version(model: CallableModel) -> int | None:
    """Return the version that answers by default; None while there is none."""
    return next(
        (variant.version for variant in model.variants if variant.role == "default"),
        None,
    )


def _shown(model: CallableModel) -> CallableVersion | None:
    number = default_version(model)
    for version in model.versions:
        if number is None or version.version == number:
            return version
    return None


def _signature(signature: Signature) -> dict[str, Any]:
    facts: dict[str, Any] = {"layout": signature.layout, "labels": signature.labels}
    if signature.columns:
        facts["columns"] = [
            {"name": column.name, "type": column.dtype, "required": column.required}
            for column in signature.columns
        ]
    elif signature.layout is Layout.TENSORS:
        facts["inputs"] = [
            {"name": given.name, "type": given.dtype, "shape": given.shape}
            for given in signature.inputs
        ]
    else:
        facts |= {"type": signature.dtype, "shape": signature.shape}
    if signature.params:
        facts["params"] = [
            {
                "name": param.name,
                "type": param.dtype,
                "default": param.default,
                "is_list": param.shape is not None,
            }
            for param in signature.params
        ]
    if signature.image is not None:
        facts["image"] = msgspec.to_builtins(signature.image)
    return facts


def _rules(signature: Signature) -> dict[str, dict[str, Any]]:
    rules = {column.name: _rule(column) for column in signature.columns}
    return {name: rule for name, rule in rules.items() if rule}


def _rule(column: Column) -> dict[str, Any]:
    rule = {
        "min": column.minimum,
        "max": column.maximum,
        "enum": column.enum,
        "max_length": column.max_length,
    }
    return {
        name: msgspec.to_builtins(value)
        for name, value in rule.items()
        if value is not None
    }
