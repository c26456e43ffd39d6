"""Read an MLflow signature and a version's own metadata as a Signature.

The specs are MLflow's own JSON: `{"type": "long", "name": "age", "required": true}`
for a column, `{"type": "tensor", "tensor-spec": {"dtype", "shape"}}` for a tensor.
"""

from typing import Any

from inference.engine.signatures import padding
from inference.engine.signatures.mlflow_types import JSON_TYPES, SCALARS, json_schema
from inference.engine.signatures.signature import (
    ONLY_INPUT,
    Column,
    Image,
    Layout,
    Param,
    Signature,
    Task,
    TensorInput,
    UnsupportedSignature,
)
from inference.engine.wire.dtypes import BYTES, JSON, TEXT

# numpy's names for arrays of Python objects and of bytes.
_TENSOR_DTYPES = {"object": TEXT, "str": TEXT, "string": TEXT, "bytes": BYTES}
_CHANNELS = {"RGB": 3, "L": 1}


def from_mlflow(
    signature: dict[str, Any], metadata: dict[str, Any] | None = None
) -> Signature:
    """Combine an MLflow signature with the version's own metadata.

    `signature["inputs"]` is the list of MLflow's column or tensor specs. Raises
    UnsupportedSignature with a message for the data scientist.
    """
    metadata = metadata or {}
    specs = signature.get("inputs") or []
    if not specs:
        raise UnsupportedSignature(
            "The version was logged without an input signature; log it with "
            "`signature=` or `input_example=`."
        )
    rules = metadata.get("rules", {})
    layout, dtype = Layout.TABLE, ""
    columns: tuple[Column, ...] = ()
    shape: tuple[int, ...] = ()
    inputs: tuple[TensorInput, ...] = ()
    if any(spec.get("type") == "tensor" for spec in specs):
        inputs = _tensor_inputs(specs)
        if len(inputs) > 1:
            layout = Layout.TENSORS
        else:
            layout, columns = _columns_of_tensor(inputs[0], metadata, rules)
            dtype, shape = inputs[0].dtype, inputs[0].shape
    else:
        columns = _columns(specs, rules)
    return Signature(
        layout=layout,
        columns=columns,
        dtype=dtype,
        shape=shape,
        inputs=() if layout is Layout.MATRIX else inputs,
        params=tuple(_param(spec) for spec in signature.get("params") or ()),
        outputs=_output_names(signature.get("outputs") or []),
        task=Task(metadata.get("task", Task.CUSTOM)),
        labels=tuple(str(label) for label in metadata.get("labels", ())),
        decision_threshold=metadata.get("decision_threshold"),
        low_confidence_below=metadata.get("low_confidence_below"),
        background=metadata.get("background"),
        example_outputs=metadata.get("example_outputs"),
        example_tolerance=metadata.get("example_tolerance", 1e-3),
        image=_image(metadata.get("image"), layout, shape),
        normalize=metadata.get("normalize", False),
        precision=metadata.get("precision", "float32"),
        padding=padding.from_metadata(metadata["padding"])
        if "padding" in metadata
        else None,
        output_shapes=_output_shapes(signature.get("outputs") or []),
    )


def _tensor_inputs(specs: list[dict[str, Any]]) -> tuple[TensorInput, ...]:
    inputs = tuple(_tensor_input(spec) for spec in specs)
    if len(inputs) == 1:
        return inputs
    names = [spec.get("name") for spec in specs]
    if None in names or len(set(names)) < len(names):
        raise UnsupportedSignature("Each of several input tensors needs its own name.")
    return inputs


def _tensor_input(spec: dict[str, Any]) -> TensorInput:
    if spec.get("type") != "tensor":
        raise UnsupportedSignature("Tensors and columns cannot be mixed as inputs.")
    dtype, full_shape = spec["tensor-spec"]["dtype"], spec["tensor-spec"]["shape"]
    if not full_shape or full_shape[0] != -1:
        raise UnsupportedSignature(
            "The first dimension of an input tensor must be -1, the batch; log the "
            "model with an example of more than one row."
        )
    shape = tuple(full_shape[1:])
    if any(size != -1 and size < 1 for size in shape):
        raise UnsupportedSignature("The sizes of an input tensor must be positive.")
    return TensorInput(
        name=_name(spec),
        dtype=_TENSOR_DTYPES.get(dtype, dtype),
        shape=shape,
    )


def _output_shapes(specs: list[dict[str, Any]]) -> tuple[tuple[int, ...], ...]:
    """Return the shapes per row, if all outputs are tensors and a length varies."""
    if any(spec.get("type") != "tensor" for spec in specs):
        return ()
    shapes = tuple(tuple(spec["tensor-spec"]["shape"][1:]) for spec in specs)
    return shapes if any(-1 in shape for shape in shapes) else ()


def _columns_of_tensor(
    tensor: TensorInput, metadata: dict[str, Any], rules: dict[str, Any]
) -> tuple[Layout, tuple[Column, ...]]:
    names = metadata.get("columns")
    if not names:
        return Layout.TENSOR, ()
    if tensor.shape != (len(names),):
        raise UnsupportedSignature(
            f"The metadata names {len(names)} columns, the tensor has shape "
            f"{list(tensor.shape)} per row."
        )
    return Layout.MATRIX, tuple(
        _column({"name": name}, rules, dtype=tensor.dtype) for name in names
    )


def _columns(specs: list[dict[str, Any]], rules: dict[str, Any]) -> tuple[Column, ...]:
    columns = tuple(_column(spec, rules) for spec in specs)
    if len({column.name for column in columns}) < len(columns):
        raise UnsupportedSignature("Each of several columns needs its own name.")
    return columns


def _name(spec: dict[str, Any]) -> str:
    """Return an input's name; pandas also labels columns with 0, 1 and so on."""
    name = spec.get("name")
    return ONLY_INPUT if name is None else str(name)


def _column(
    spec: dict[str, Any], rules: dict[str, Any], *, dtype: str | None = None
) -> Column:
    name = _name(spec)
    rule = rules.get(name, {})
    schema = None
    if dtype is None:
        kind = spec.get("type", "")
        if kind in JSON_TYPES:
            dtype, schema = JSON, json_schema(spec)
        elif kind in SCALARS:
            dtype = SCALARS[kind].dtype
        else:
            raise UnsupportedSignature(
                f"Column {name!r} is of type {kind!r}, which cannot be served."
            )
    choices = rule.get("enum")
    return Column(
        name=name,
        dtype=dtype,
        required=spec.get("required", True) and not rule.get("optional", False),
        minimum=rule.get("min"),
        maximum=rule.get("max"),
        enum=tuple(choices) if choices else None,
        max_length=rule.get("max_length"),
        json_schema=schema,
    )


def _param(spec: dict[str, Any]) -> Param:
    kind = spec.get("type") or spec.get("dtype") or ""
    if kind not in SCALARS and kind not in JSON_TYPES:
        raise UnsupportedSignature(
            f"Parameter {spec['name']!r} is of type {kind!r}, which cannot be served."
        )
    return Param(
        name=spec["name"],
        dtype=SCALARS[kind].dtype if kind in SCALARS else JSON,
        default=spec.get("default"),
        shape=(-1,) if spec.get("shape") else None,
        json_schema=None if kind in SCALARS else json_schema(spec),
    )


def _output_names(specs: list[dict[str, Any]]) -> tuple[str, ...]:
    names = [spec.get("name") for spec in specs]
    if None in names or len(set(names)) < len(names):
        return ()
    return tuple(str(name) for name in names)


def _image(
    facts: dict[str, Any] | None, layout: Layout, shape: tuple[int, ...]
) -> Image | None:
    """Combine the metadata's `image` with the tensor's shape, its default for sizes."""
    if facts is None:
        return None
    if layout is not Layout.TENSOR or len(shape) not in (2, 3):
        raise UnsupportedSignature(
            "Pictures need one input tensor of two or three sizes per row."
        )
    mode = facts["mode"]
    channels = _CHANNELS[mode]
    first = facts.get("channels_first", len(shape) == 3 and shape[0] == channels)
    sizes = shape
    if len(shape) == 3:
        depth, sizes = (shape[0], shape[1:]) if first else (shape[2], shape[:2])
        if depth not in (channels, -1):
            raise UnsupportedSignature(
                f"Pictures of mode {mode} have {channels} channels, the tensor {depth}."
            )
    elif mode != "L":
        raise UnsupportedSignature(f"Pictures of mode {mode} need a channel axis.")
    height, width = facts.get("height", sizes[0]), facts.get("width", sizes[1])
    if height < 1 or width < 1:
        raise UnsupportedSignature("The metadata's image needs height and width.")
    if sizes[0] not in (height, -1) or sizes[1] not in (width, -1):
        raise UnsupportedSignature(
            f"The metadata's image is {height}x{width}, the tensor {sizes[0]}x"
            f"{sizes[1]}."
        )
    return Image(mode=mode, height=height, width=width, channels_first=first)
