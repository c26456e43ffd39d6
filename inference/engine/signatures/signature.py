"""Describe the inputs and outputs of one model version as plain data.

`mlflow_signature` makes a Signature from an MLflow signature and the `modelyard`
metadata. The decoder, the engine, the answers and the API docs read it.
"""

import enum
from typing import Any, Literal

import msgspec

from inference.engine.signatures.padding import Padding
from inference.engine.wire.dtypes import JSON

# Name of the only tensor that the engine gets, and of an input that has none in MLflow.
ONLY_INPUT = "input"


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
    """A named input; `dtype` is a numpy name or one of OBJECT_DTYPES."""

    name: str
    dtype: str = "float32"
    required: bool = True
    minimum: float | None = None
    maximum: float | None = None
    enum: tuple[str | int | float, ...] | None = None
    max_length: int | None = None
    # JSON Schema of one value, for columns of dtype "json".
    json_schema: dict[str, Any] | None = None
    # Optional for the model, but a route requires it.
    required_by_route: bool = False

    @property
    def carrier(self) -> str:
        """The dtype of the tensor `[rows]` that carries this column of a table.

        In an optional column, integers are floats and booleans are objects, as in
        pandas, even if no value is missing. So a model's input for one row does not
        depend on other rows in the batch.
        """
        if self.required and not self.required_by_route:
            return self.dtype
        if self.dtype == "bool":
            return JSON
        return "float64" if self.dtype in _WHOLE_DTYPES else self.dtype


class TensorInput(msgspec.Struct, frozen=True, omit_defaults=True):
    """One input tensor; `shape` is per row, -1 where the length varies."""

    name: str
    dtype: str = "float32"
    shape: tuple[int, ...] = ()


class Param(msgspec.Struct, frozen=True, omit_defaults=True):
    """A parameter that a caller may send with the instances, or else `default`."""

    name: str
    # Dtype of one value; in `default` datetimes are ISO 8601 texts.
    dtype: str
    default: Any = None
    # (-1,): a list of values, of any length.
    shape: tuple[int, ...] | None = None
    # JSON Schema of one value, if dtype is "json".
    json_schema: dict[str, Any] | None = None


class Image(msgspec.Struct, frozen=True, omit_defaults=True):
    """How images become rows of the single tensor.

    Integers are 0 to 255, floats 0 to 1, depending on the tensor's dtype. A row is
    `[height, width, channels]`, or `[channels, height, width]`, or `[height, width]`
    if mode is "L" and the signature's shape has two sizes.
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
    # Dtype and shape per row of the single tensor (MATRIX and TENSOR layouts); -1
    # where the length varies.
    dtype: str = "float32"
    shape: tuple[int, ...] = ()
    # All tensors of layout TENSORS, or the single one of TENSOR.
    inputs: tuple[TensorInput, ...] = ()
    params: tuple[Param, ...] = ()
    # Names of the outputs in their order, if MLflow knows them.
    outputs: tuple[str, ...] = ()
    task: Task = Task.CUSTOM
    # One per class, in the order of the output's last axis.
    labels: tuple[str, ...] = ()
    decision_threshold: float | None = None
    low_confidence_below: float | None = None
    # File with the SHAP background inside the artifact, if there is one.
    background: str | None = None
    # File in the artifact with the logged outputs for the input example.
    example_outputs: str | None = None
    # Greatest absolute difference allowed from the example's logged outputs.
    example_tolerance: float = 1e-3
    image: Image | None = None
    # Scale the vectors of an embedding to length 1.
    normalize: bool = False
    # "bfloat16": only on devices that are fast at it; "auto": the same, and only if
    # the example's outputs stay within its tolerance.
    precision: Literal["float32", "bfloat16", "auto"] = "float32"
    # How rows of different lengths share a batch; None: they do not.
    padding: Padding | None = None
    # Shape per row of each output, in their order; -1 where the length varies.
    output_shapes: tuple[tuple[int, ...], ...] = ()

    @property
    def engine_inputs(self) -> tuple[TensorInput, ...]:
        """The tensors that the engine gets, if the layout is not TABLE."""
        if self.layout is Layout.TENSORS:
            return self.inputs
        return (TensorInput(ONLY_INPUT, self.dtype, self.shape),)

    @property
    def row_shapes(self) -> tuple[tuple[int, ...], ...]:
        """The shape per row of each input tensor; -1 where the length varies."""
        if self.layout is Layout.TENSORS:
            return tuple([each.shape for each in self.inputs])
        return (self.shape,)


class UnsupportedSignature(ValueError):
    """A signature that cannot be served; the message says why."""


def with_rules(signature: Signature, rules: dict[str, Any]) -> Signature:
    """Return the signature with a route's own rules for its columns."""
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
            # A route may require more columns than the model, never fewer.
            required=column.required or rules[column.name].get("optional") is False,
            required_by_route=not column.required
            and rules[column.name].get("optional") is False,
        )
        if column.name in rules
        else column
        for column in signature.columns
    )
    return msgspec.structs.replace(signature, columns=columns)
