"""Named arrays, and how they cross a socket as headers and raw buffers."""

from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from inference.engine.messages import TensorHeader

# dtype `object` holds Python strings only.
Array = NDArray[np.generic] | NDArray[np.object_]

TEXT = "str"
# The dtypes that may cross, by name; anything else is refused before numpy sees it.
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
    )
}
_NAMES: dict[np.dtype[np.generic], str] = {
    dtype: name for name, dtype in DTYPES.items()
} | {np.dtype(object): TEXT}

_text_encoder = msgspec.msgpack.Encoder()
_text_decoder = msgspec.msgpack.Decoder(list[str | None])


class InvalidTensor(ValueError):
    """Bytes, dtype and shape of a tensor do not agree."""


class Tensor(msgspec.Struct, frozen=True, gc=False):
    """A named array whose first axis is the rows."""

    name: str
    data: Array


class Prediction(msgspec.Struct, frozen=True, gc=False):
    """Outputs of one request, rows in its order, and where its time went."""

    tensors: tuple[Tensor, ...]
    queue_us: int
    compute_us: int
    batch_rows: int


def dtype_name(array: Array) -> str:
    """Name the dtype as headers do; raise InvalidTensor if it may not cross."""
    name = _NAMES.get(array.dtype)
    if name is None:
        raise InvalidTensor(f"tensors of dtype {array.dtype} cannot be sent")
    return name


def encode(tensor: Tensor) -> tuple[TensorHeader, bytes]:
    """Give the header and buffer of a tensor; a buffer of text is MessagePack."""
    data = tensor.data
    name = dtype_name(data)
    buffer = _encode_text(data) if name == TEXT else data.tobytes()
    return TensorHeader(tensor.name, name, data.shape, len(buffer)), buffer


def _encode_text(data: Array) -> bytes:
    items = data.ravel().tolist()
    # The other side hangs up on anything else, and on all that share the socket.
    if not all(item is None or type(item) is str for item in items):
        raise InvalidTensor("an array of objects holds more than text")
    try:
        return _text_encoder.encode(items)
    except UnicodeEncodeError as error:
        raise InvalidTensor("a text holds half a surrogate pair") from error


def decode(headers: Sequence[TensorHeader], body: memoryview) -> tuple[Tensor, ...]:
    """Read tensors that share memory with `body` (text excepted).

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
    if header.dtype == TEXT:
        return _decode_text(header, buffer)
    dtype = DTYPES.get(header.dtype)
    if dtype is None:
        raise InvalidTensor(f"unknown dtype {header.dtype[:40]!r}")
    try:
        # A negative size would let reshape guess; the product then differs.
        count = 1
        for size in header.shape:
            count *= size
        if count * dtype.itemsize != header.nbytes:
            raise InvalidTensor("shape and number of bytes do not agree")
        return np.frombuffer(buffer, dtype).reshape(header.shape)
    except (ValueError, TypeError) as error:
        raise InvalidTensor("shape and number of bytes do not agree") from error


def _decode_text(header: TensorHeader, buffer: memoryview) -> Array:
    try:
        strings = _text_decoder.decode(buffer)
        array = np.empty(len(strings), dtype=object)
        array[:] = strings
        return array.reshape(header.shape)
    except (msgspec.DecodeError, ValueError, TypeError) as error:
        raise InvalidTensor("a text buffer is not an array of strings") from error
