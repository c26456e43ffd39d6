"""Read what a version promises its callers: names, types, shapes, limits, labels."""

from typing import Any

import msgspec

from registry.mlflow.types import Json, input_name

# MLflow's names of column types, by numpy's names of dtypes.
_COLUMN_TYPES = {
    "bool": "boolean",
    "int32": "integer",
    "int64": "long",
    "float32": "float",
    "float64": "double",
    "str": "string",
    "object": "string",
}
_LIMITS = ("min", "max", "max_length")


class Field(msgspec.Struct, frozen=True, omit_defaults=True):
    """One input column, tensor, output or parameter, as callers name it."""

    name: str
    # MLflow's name of a column type, numpy's of a dtype, or a nested type in words.
    type: str
    # Of a tensor with its batch; -1 is any size. None: a single value.
    shape: tuple[int, ...] | None = None
    required: bool = True
    # The greatest and least values that are taken: min, max, max_length, enum.
    limits: dict[str, Any] = {}
    # Of a parameter.
    default: Any = None


class Contract(msgspec.Struct, frozen=True, omit_defaults=True):
    """What callers of a version rely on.

    A tensor whose columns the metadata names has both `columns` and `tensors`: callers
    may send either.
    """

    columns: tuple[Field, ...] = ()
    tensors: tuple[Field, ...] = ()
    outputs: tuple[Field, ...] = ()
    params: tuple[Field, ...] = ()
    task: str = "custom"
    labels: tuple[str, ...] = ()
    # Callers may send pictures for the rows of the input tensor.
    pictures: bool = False


def contract_of(metadata: Json, signature: Json) -> Contract:
    """Read a version's MLflow signature and its own metadata, which must be valid."""
    inputs = signature.get("inputs") or []
    rules = metadata.get("rules", {})
    if any(spec.get("type") == "tensor" for spec in inputs):
        tensors = tuple(_field(spec, input_name(spec)) for spec in inputs)
        names = metadata.get("columns") or [] if len(tensors) == 1 else []
        kind = _COLUMN_TYPES.get(tensors[0].type, tensors[0].type)
        specs = [{"name": name, "type": kind} for name in names]
    else:
        tensors, specs = (), inputs
    outputs = signature.get("outputs") or []
    return Contract(
        columns=tuple(_column(spec, rules) for spec in specs),
        tensors=tensors,
        outputs=tuple(
            _field(spec, input_name(spec, f"output {place}"))
            for place, spec in enumerate(outputs)
        ),
        params=tuple(_param(spec) for spec in signature.get("params") or []),
        task=metadata.get("task", "custom"),
        labels=tuple(str(label) for label in metadata.get("labels", ())),
        pictures=metadata.get("image") is not None,
    )


def _field(spec: Json, name: str) -> Field:
    tensor = spec.get("tensor-spec")
    if spec.get("type") == "tensor" and isinstance(tensor, dict):
        return Field(name, str(tensor.get("dtype", "")), shape=_sizes(tensor))
    return Field(name, _type_of(spec), required=bool(spec.get("required", True)))


def _column(spec: Json, rules: Json) -> Field:
    field = _field(spec, input_name(spec))
    rule = rules.get(field.name, {})
    limits = {name: rule[name] for name in _LIMITS if rule.get(name) is not None}
    if rule.get("enum"):
        limits["enum"] = sorted(rule["enum"], key=repr)
    required = field.required and not rule.get("optional", False)
    return msgspec.structs.replace(field, required=required, limits=limits)


def _param(spec: Json) -> Field:
    return Field(
        str(spec.get("name")),
        _type_of({**spec, "type": spec.get("type") or spec.get("dtype")}),
        shape=_sizes(spec) or None,
        required="default" not in spec,
        default=spec.get("default"),
    )


def _sizes(spec: Json) -> tuple[int, ...]:
    """Return a shape; what its author wrote instead of a size counts as any size."""
    shape = spec.get("shape")
    if not isinstance(shape, list):
        return ()
    return tuple(size if isinstance(size, int) else -1 for size in shape)


def _type_of(spec: Json) -> str:
    """Write MLflow's type in words, a nested one with all that it holds."""
    if not isinstance(spec, dict):
        return str(spec)
    kind = str(spec.get("type", ""))
    if kind == "array":
        return f"array of {_type_of(spec.get('items'))}"
    if kind == "map":
        return f"map of {_type_of(spec.get('values'))}"
    if kind != "object":
        return kind
    properties = spec.get("properties")
    if not isinstance(properties, dict):
        return kind
    members = [
        f"{name}{_mark(inner)}: {_type_of(inner)}"
        for name, inner in sorted(properties.items())
    ]
    return f"object of ({', '.join(members)})"


def _mark(spec: Json) -> str:
    """Mark a member that may be left out."""
    optional = isinstance(spec, dict) and not spec.get("required", True)
    return "?" if optional else ""
