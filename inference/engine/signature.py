"""What one model version takes and gives, in plain data.

Built from an MLflow signature and the `modelyard` metadata; read by the decoder, the
engine, the answers and the API docs.
"""

import enum
from typing import Any

import msgspec


class Layout(enum.StrEnum):
    """How instances become tensors.

    MATRIX: named columns of one dtype, stacked into one tensor `[rows, columns]`.
    TABLE: named columns, one tensor `[rows]` each, of its own dtype.
    TENSOR: nested lists without names, one tensor `[rows, *shape]`.
    """

    MATRIX = "matrix"
    TABLE = "table"
    TENSOR = "tensor"


class Column(msgspec.Struct, frozen=True, omit_defaults=True):
    """A named input. `dtype` is a numpy name, or `str` for text."""

    name: str
    dtype: str = "float32"
    required: bool = True
    minimum: float | None = None
    maximum: float | None = None
    enum: tuple[str | int | float, ...] | None = None
    max_length: int | None = None


class Task(enum.StrEnum):
    CLASSIFICATION = "classification"
    REGRESSION = "regression"
    EMBEDDING = "embedding"
    TEXT = "text"
    IMAGE = "image"
    CUSTOM = "custom"


class Signature(msgspec.Struct, frozen=True, omit_defaults=True):
    layout: Layout
    columns: tuple[Column, ...] = ()
    # dtype and trailing shape of the single tensor (MATRIX and TENSOR layouts)
    dtype: str = "float32"
    shape: tuple[int, ...] = ()
    task: Task = Task.CUSTOM
    # One per class, in the order of the output's last axis.
    labels: tuple[str, ...] = ()
    decision_threshold: float | None = None
    low_confidence_below: float | None = None
    # Folder or file of the SHAP background inside the artifact, if there is one.
    background: str | None = None
    # File in the artifact (.npy) with what the input example was answered.
    example_outputs: str | None = None
    # Greatest absolute difference allowed when the logged example is replayed.
    example_tolerance: float = 1e-3


class UnsupportedSignature(ValueError):
    """The signature is of a form that cannot be served yet; the text says which."""


# Types of MLflow's column specs → dtype of the tensor that carries the column.
_COLUMN_DTYPES = {
    "double": "float64",
    "float": "float32",
    "long": "int64",
    "integer": "int32",
    "boolean": "bool",
    "string": "str",
}


def from_mlflow(
    signature: dict[str, Any], metadata: dict[str, Any] | None = None
) -> Signature:
    """Combine an MLflow signature with the version's own metadata.

    `signature["inputs"]` is the list of MLflow's column or tensor specs. Raises
    UnsupportedSignature with a sentence for the data scientist.
    """
    metadata = metadata or {}
    inputs = signature.get("inputs") or []
    if not inputs:
        raise UnsupportedSignature(
            "The version was logged without an input signature; log it with "
            "`signature=` or `input_example=`."
        )
    rules = metadata.get("rules", {})
    if inputs[0].get("type") == "tensor":
        layout, columns, dtype, shape = _from_tensor(inputs, metadata, rules)
    else:
        layout, dtype, shape = Layout.TABLE, "", ()
        columns = tuple(_column(spec, rules) for spec in inputs)
    return Signature(
        layout=layout,
        columns=columns,
        dtype=dtype,
        shape=shape,
        task=Task(metadata.get("task", Task.CUSTOM)),
        labels=tuple(str(label) for label in metadata.get("labels", ())),
        decision_threshold=metadata.get("decision_threshold"),
        low_confidence_below=metadata.get("low_confidence_below"),
        background=metadata.get("background"),
        example_outputs=metadata.get("example_outputs"),
        example_tolerance=metadata.get("example_tolerance", 1e-3),
    )


def _from_tensor(
    inputs: list[dict[str, Any]], metadata: dict[str, Any], rules: dict[str, Any]
) -> tuple[Layout, tuple[Column, ...], str, tuple[int, ...]]:
    if len(inputs) > 1:
        raise UnsupportedSignature("Several input tensors cannot be served yet.")
    spec = inputs[0]["tensor-spec"]
    dtype, full_shape = spec["dtype"], spec["shape"]
    if not full_shape or full_shape[0] != -1:
        raise UnsupportedSignature(
            "The first dimension of the input tensor must be -1, the batch; log the "
            "model with an example of more than one row."
        )
    shape = tuple(full_shape[1:])
    if any(size < 1 for size in shape):
        raise UnsupportedSignature(
            "Only the first dimension of the input tensor may vary."
        )
    names = metadata.get("columns")
    if not names:
        return Layout.TENSOR, (), dtype, shape
    if shape != (len(names),):
        raise UnsupportedSignature(
            f"The metadata names {len(names)} columns, the tensor has shape "
            f"{list(shape)} per row."
        )
    columns = tuple(_column({"name": name}, rules, dtype=dtype) for name in names)
    return Layout.MATRIX, columns, dtype, shape


def _column(
    spec: dict[str, Any], rules: dict[str, Any], *, dtype: str | None = None
) -> Column:
    name = spec.get("name") or "input"
    rule = rules.get(name, {})
    if dtype is None:
        kind = spec.get("type", "")
        if kind not in _COLUMN_DTYPES:
            raise UnsupportedSignature(
                f"Column {name!r} is of type {kind!r}, which cannot be served yet."
            )
        dtype = _COLUMN_DTYPES[kind]
    choices = rule.get("enum")
    return Column(
        name=name,
        dtype=dtype,
        required=spec.get("required", True) and not rule.get("optional", False),
        minimum=rule.get("min"),
        maximum=rule.get("max"),
        enum=tuple(choices) if choices else None,
        max_length=rule.get("max_length"),
    )


def with_rules(signature: Signature, rules: dict[str, Any]) -> Signature:
    """Replace the rules of the columns that a route overrides."""
    if not rules:
        return signature
    columns = tuple(
        msgspec.structs.replace(
            column,
            minimum=rules[column.name].get("min", column.minimum),
            maximum=rules[column.name].get("max", column.maximum),
            enum=tuple(rules[column.name]["enum"])
            if "enum" in rules[column.name]
            else column.enum,
            max_length=rules[column.name].get("max_length", column.max_length),
        )
        if column.name in rules
        else column
        for column in signature.columns
    )
    return msgspec.structs.replace(signature, columns=columns)
