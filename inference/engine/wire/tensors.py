"""Hold named arrays, and encode them as headers and raw buffers for a socket."""

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from inference.engine.wire.dtypes import (
    DATETIME,
    JSON,
    MAX_WHOLE_FLOAT,
    OBJECT_DTYPES,
    TEXT,
)
from inference.engine.wire.messages import TensorHeader

# Arrays of dtype `object` hold MessagePack values, mostly text.
Array = NDArray[np.generic] | NDArray[np.object_]

# Dtypes that may cross, by name; others are refused before numpy sees them.
DTYPES: dict[str, np.dtype[np.generic]] = {
    name: np.dtype(name)
    for name in (
        "bool",
        "int8",
        "int16",
        "int32",
        "int64",
        "uint8",
        "uint16",
        "uint32",
        "uint64",
        "float16",
        "float32",
        "float64",
        DATETIME,
    )
}
_NAMES: dict[np.dtype[np.generic], str] = {
    dtype: name for name, dtype in DTYPES.items()
} | {np.dtype(object): TEXT}

Buffer = bytes | memoryview
_LARGE_BYTES = 64 * 1024

_text_encoder = msgspec.msgpack.Encoder()
_text_decoder = msgspec.msgpack.Decoder(list[str | None])
_value_decoder = msgspec.msgpack.Decoder(list[Any])


class InvalidTensor(ValueError):
    """Bytes, dtype and shape of a tensor do not agree."""


class Tensor(msgspec.Struct, frozen=True, gc=False):
    """A named array whose first axis is the rows."""

    name: str
    data: Array


class Prediction(msgspec.Struct, frozen=True, gc=False):
    """The outputs of one request, rows in its order, and where its time went."""

    tensors: tuple[Tensor, ...]
    queue_us: int
    compute_us: int
    batch_rows: int


def numpy_dtype(name: str) -> np.dtype[Any]:
    """Return numpy's dtype for a name in a signature; raise InvalidTensor."""
    if name in OBJECT_DTYPES:
        return np.dtype(object)
    dtype = DTYPES.get(name)
    if dtype is None:
        raise InvalidTensor(f"unknown dtype {name[:40]!r}")
    return dtype


def dtype_name(array: Array) -> str:
    """Return an array's dtype as headers name it; raise InvalidTensor.

    An array of objects always counts as TEXT here; `encode` looks at its values.
    """
    name = _NAMES.get(array.dtype)
    if name is None:
        raise InvalidTensor(f"tensors of dtype {array.dtype} cannot be sent")
    return name


def encode(tensor: Tensor) -> tuple[TensorHeader, Buffer]:
    """Return a tensor's header and buffer; objects are encoded in MessagePack."""
    data = tensor.data
    name = dtype_name(data)
    if name != TEXT:
        buffer = raw(data)
    else:
        name, buffer = _encode_objects(data)
    return TensorHeader(tensor.name, name, data.shape, len(buffer)), buffer


def raw(data: Array) -> Buffer:
    """Return the bytes of an array of numbers, from 64 KB on without a copy."""
    if data.nbytes < _LARGE_BYTES:
        return data.tobytes()
    flat: Any = np.ascontiguousarray(data).reshape(-1)
    view: memoryview = flat.view(np.uint8).data
    return view


def _encode_objects(data: Array) -> tuple[str, Buffer]:
    """Encode text as TEXT and all other values, also bytes, as JSON."""
    items = data.ravel().tolist()
    is_text = all(item is None or type(item) is str for item in items)
    try:
        buffer = _text_encoder.encode(items)
        if not is_text:
            # Check that the other side can decode it: otherwise it would close the
            # socket, which other requests share.
            _value_decoder.decode(buffer)
    except UnicodeEncodeError as error:
        raise InvalidTensor("a text holds half a surrogate pair") from error
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise InvalidTensor(
            "an array of objects holds more than text and JSON values"
        ) from error
    return TEXT if is_text else JSON, buffer


def decode(headers: Sequence[TensorHeader], body: memoryview) -> tuple[Tensor, ...]:
    """Decode tensors that share memory with `body`, except those of objects.

    Raises InvalidTensor unless the headers account for every byte of `body`.
    """
    tensors = []
    start = 0
    for header in headers:
        end = start + header.nbytes
        if header.nbytes < 0 or end > len(body):
            raise InvalidTensor("buffers are shorter than their headers say")
        tensors.append(Tensor(header.name, _decode_one(header, body[start:end])))
        start = end
    if start != len(body):
        raise InvalidTensor("buffers are longer than their headers say")
    return tuple(tensors)


def _decode_one(header: TensorHeader, buffer: memoryview) -> Array:
    if header.dtype in (TEXT, JSON):
        return _decode_objects(header, buffer)
    dtype = DTYPES.get(header.dtype)
    if dtype is None:
        raise InvalidTensor(f"unknown dtype {header.dtype[:40]!r}")
    try:
        array: Array = np.ndarray(header.shape, dtype, buffer)
    except (ValueError, TypeError, OverflowError) as error:
        raise InvalidTensor("shape and number of bytes do not agree") from error
    # A size of -1 would let numpy derive the shape from the buffer.
    if array.nbytes != header.nbytes or array.shape != header.shape:
        raise InvalidTensor("shape and number of bytes do not agree")
    return array


def _decode_objects(header: TensorHeader, buffer: memoryview) -> Array:
    try:
        if header.dtype == TEXT:
            strings: Any = _text_decoder.decode(buffer)
            array: Array = np.empty(len(strings), dtype=object)
            array[:] = strings
        else:
            array = object_array(_value_decoder.decode(buffer))
        return array.reshape(header.shape)
    except (msgspec.DecodeError, ValueError, TypeError, RecursionError) as error:
        kind = "strings" if header.dtype == TEXT else "values"
        raise InvalidTensor(f"a buffer is not an array of {kind}") from error


def exceeds_floats(numbers: Any) -> bool:
    """Return whether an integer lies beyond ±2**53, where float64 is not exact."""
    return bool(((numbers > MAX_WHOLE_FLOAT) | (numbers < -MAX_WHOLE_FLOAT)).any())


def object_array(values: Sequence[Any]) -> Array:
    """Make an array `[len(values)]` of objects; lists among them stay lists."""
    array = np.empty(len(values), dtype=object)
    for index, value in enumerate(values):
        array[index] = value
    return array
