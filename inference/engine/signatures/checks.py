"""Check tensors and parameters against a version's signature."""

from collections.abc import Sequence

from inference.engine.signatures.signature import Column, Layout, Signature
from inference.engine.wire.dtypes import DATETIME, OBJECT_DTYPES
from inference.engine.wire.errors import EngineError, EngineErrorCode
from inference.engine.wire.messages import Params
from inference.engine.wire.tensors import Tensor, dtype_name, numpy_dtype


def check_layout(signature: Signature, tensors: Sequence[Tensor]) -> None:
    """Raise EngineError BAD_REQUEST unless the tensors fit the signature."""
    if signature.layout is Layout.TABLE:
        _check_table(signature, tensors)
    elif signature.layout is Layout.TENSORS:
        _check_tensors(signature, tensors)
    elif len(tensors) != 1 or not _fits(
        tensors[0], dtype=signature.dtype, shape=signature.shape
    ):
        raise _bad_request(
            f"one tensor of {signature.dtype} and shape {list(signature.shape)} per "
            "row is expected"
        )


def _check_tensors(signature: Signature, tensors: Sequence[Tensor]) -> None:
    by_name = {tensor.name: tensor for tensor in tensors}
    if len(by_name) != len(tensors) or len(tensors) != len(signature.inputs):
        raise _bad_request(f"{len(signature.inputs)} tensors are expected")
    for wanted in signature.inputs:
        tensor = by_name.get(wanted.name)
        if tensor is None or not _fits(tensor, dtype=wanted.dtype, shape=wanted.shape):
            raise _bad_request(
                f"input {wanted.name!r} of {wanted.dtype} and shape "
                f"{list(wanted.shape)} per row is expected"
            )


def _fits(tensor: Tensor, *, dtype: str, shape: tuple[int, ...]) -> bool:
    """Return whether dtype and shape match; a declared size of -1 allows any but 0."""
    data = tensor.data
    if data.dtype != numpy_dtype(dtype) or data.ndim != len(shape) + 1:
        return False
    return all(
        got == size or (size == -1 and got > 0)
        for got, size in zip(data.shape[1:], shape, strict=True)
    )


def _check_table(signature: Signature, tensors: Sequence[Tensor]) -> None:
    columns = {column.name: column for column in signature.columns}
    seen = set()
    for tensor in tensors:
        column = columns.get(tensor.name)
        if column is None or tensor.name in seen:
            raise _bad_request(f"column {tensor.name[:80]!r} is unknown or twice there")
        seen.add(tensor.name)
        if tensor.data.ndim != 1 or not _carries(tensor, column):
            raise _bad_request(
                f"column {tensor.name!r} is one value of {column.dtype} per row, not "
                f"{dtype_name(tensor.data)} of shape {list(tensor.data.shape[1:])}"
            )
    missing = [
        name for name, column in columns.items() if column.required and name not in seen
    ]
    if missing:
        raise _bad_request(f"column {missing[0]!r} is missing")


def check_params(signature: Signature, params: Params | None) -> None:
    """Raise EngineError BAD_REQUEST for parameters that the signature lacks.

    The sender has already checked their values.
    """
    if params is None:
        return
    known = {param.name for param in signature.params}
    if unknown := params.keys() - known:
        raise _bad_request(f"parameter {min(unknown)[:80]!r} is unknown")


def _carries(tensor: Tensor, column: Column) -> bool:
    """Return whether an array may carry a column; numbers are cast to its dtype."""
    dtype = tensor.data.dtype
    if column.carrier in OBJECT_DTYPES:
        return dtype.kind == "O"
    return dtype.kind != "O" and (dtype.kind == "M") == (column.dtype == DATETIME)


def _bad_request(message: str) -> EngineError:
    return EngineError(EngineErrorCode.BAD_REQUEST, message)
