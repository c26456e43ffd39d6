"""What one model version takes and gives, in plain data.

Made by `mlflow_signature` from an MLflow signature and the `modelyard` metadata; read
by the decoder, the engine, the answers and the API docs.
"""

import enum
from typing import Any, Literal

import msgspec

from inference.engine.signatures.padding import Padding
from inference.engine.wire.dtypes import JSON


class Layout(enum.StrEnum):
    """How instances become tensors.

    MATRIX: named columns of one dtype, stacked into one tensor `[rows, columns]`.
    TABLE: named columns, one tensor `[rows]` each, of its own dtype.
    TENSOR: nested lists without names, one tensor `[rows, *shape]`.
    TENSORS: several named inputs, one tensor `[rows, *shape]` each.
    """

    MATRIX = "matrix"
    TABLE = "table"
    TENSOR = "tensor"
    TENSORS = "tensors"


_WHOLE_DTYPES = frozenset(
    f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)
)


class Column(msgspec.Struct, frozen=True, omit_defaults=True):
    """A named input. `dtype` is a numpy name, or one of OBJECT_DTYPES."""

    name: str
    dtype: str = "float32"
    required: bool = True
    minimum: float | None = None
    maximum: float | None = None
    enum: tuple[str | int | float, ...] | None = None
    max_length: int | None = None
    # JSON Schema of one value, for columns of dtype "json".
    json_schema: dict[str, Any] | None = None
    # A route asks for a value that the model itself can do without.
    required_by_route: bool = False

    @property
    def carrier(self) -> str:
        """The dtype of the tensor `[rows]` that carries the column of a table.

        Where a value may be missing, whole numbers are floats and truth values objects,
        as in pandas: always, and not only beside a row that lacks one. So what a model
        gets for a row does not depend on its company.
        """
        if self.required and not self.required_by_route:
            return self.dtype
        if self.dtype == "bool":
            return JSON
        return "float64" if self.dtype in _WHOLE_DTYPES else self.dtype


class TensorInput(msgspec.Struct, frozen=True, omit_defaults=True):
    """One input tensor; `shape` is that of one row, -1 where its length varies."""

    name: str
    dtype: str = "float32"
    shape: tuple[int, ...] = ()


class Param(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a caller may set beside the instances; unset, it is `default`."""

    name: str
    # Of one value; datetimes are ISO 8601 texts in `default`.
    dtype: str
    default: Any = None
    # (-1,): a list of values, of any length.
    shape: tuple[int, ...] | None = None
    # JSON Schema of one value, where dtype is "json".
    json_schema: dict[str, Any] | None = None


class Image(msgspec.Struct, frozen=True, omit_defaults=True):
    """How pictures become rows of the single tensor, whose dtype says the scale.

    Integers are 0 to 255, floats 0 to 1. A row is `[height, width, channels]`, or
    `[channels, height, width]`, or without channels where mode is "L" and the
    signature's shape has two sizes.
    """

    mode: Literal["RGB", "L"]
    height: int
    width: int
    channels_first: bool = False


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
    # dtype and trailing shape of the single tensor (MATRIX and TENSOR layouts); -1
    # where the length varies
    dtype: str = "float32"
    shape: tuple[int, ...] = ()
    # The tensors of TENSORS, and the single one of TENSOR.
    inputs: tuple[TensorInput, ...] = ()
    params: tuple[Param, ...] = ()
    # Names of the outputs in their order, as far as MLflow was told them.
    outputs: tuple[str, ...] = ()
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
    image: Image | None = None
    # Scale the vectors of an embedding to length 1.
    normalize: bool = False
    # "float32"; "bfloat16" where the device is fast at it; "auto": the same, if the
    # example's outputs stay within its tolerance.
    precision: Literal["float32", "bfloat16", "auto"] = "float32"
    # How rows of varying length share a batch; None: only those of equal length do.
    padding: Padding | None = None
    # Per output, in their order: the shape per row, -1 where its length varies.
    output_shapes: tuple[tuple[int, ...], ...] = ()

    @property
    def row_shapes(self) -> tuple[tuple[int, ...], ...]:
        """The shape per row of each input tensor; -1 where its length varies."""
        if self.layout is Layout.TENSORS:
            return tuple([each.shape for each in self.inputs])
        return (self.shape,)


class UnsupportedSignature(ValueError):
    """The signature is of a form that cannot be served; the text says which."""


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
            # A route may ask for more than the model needs, never for less.
            required=column.required or rules[column.name].get("optional") is False,
            required_by_route=not column.required
            and rules[column.name].get("optional") is False,
        )
        if column.name in rules
        else column
        for column in signature.columns
    )
    return msgspec.structs.replace(signature, columns=columns)
