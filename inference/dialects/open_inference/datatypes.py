"""Read and write the datatypes of the Open Inference Protocol, raw and as JSON.

Raw elements are little-endian and in row-major order. An element of BYTES is its length
(u32) and then its bytes. BF16, which numpy does not know, is read as float32.
"""

import math
import struct
from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
import numpy as np
import orjson

from inference.codecs.rows.nested import exact_integer
from inference.codecs.rows.types import within
from inference.codecs.rows.values import ROUNDED
from inference.engine.wire.tensors import Array
from inference.errors.api_error import ApiError, ErrorCode

BYTES, BF16 = "BYTES", "BF16"
# Byte order is explicit: the wire is little-endian, whatever the machine is.
_DTYPES: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype("bool"),
    "INT8": np.dtype("int8"),
    "INT16": np.dtype("<i2"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "UINT8": np.dtype("uint8"),
    "UINT16": np.dtype("<u2"),
    "UINT32": np.dtype("<u4"),
    "UINT64": np.dtype("<u8"),
    "FP16": np.dtype("<f2"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
}
_DATATYPES = {dtype: name for name, dtype in _DTYPES.items()}
# With more elements than this numpy packs faster than `struct`.
_MANY = 1000
_UINT16 = np.dtype("<u2")
_encoder = msgspec.json.Encoder(enc_hook=str)


def datatype_of(dtype: str) -> str | None:
    """Return the datatype of a signature's dtype; None if the protocol has none."""
    if dtype == "str":
        return BYTES
    try:
        return _DATATYPES.get(np.dtype(dtype))
    except TypeError:
        return None


def datatype_of_array(data: Array) -> str:
    """Return the datatype that an output is sent as; BYTES if it is not numbers."""
    return _DATATYPES.get(data.dtype, BYTES)


def itemsize(datatype: str) -> int:
    """Return the size of an element in bytes; not for BYTES, whose size varies."""
    return 2 if datatype == BF16 else _DTYPES[datatype].itemsize


def read_raw(
    datatype: str, buffer: bytes | memoryview, *, offset: int, nbytes: int, count: int
) -> Array:
    """Read `count` elements that fill `nbytes` of `buffer`, which the array shares.

    BYTES and BF16 are copied. Raises InvalidData.
    """
    if datatype == BYTES:
        return _read_texts(memoryview(buffer)[offset : offset + nbytes], count)
    if count * itemsize(datatype) != nbytes:
        raise InvalidData(
            f"has {nbytes} bytes, but its shape and datatype need "
            f"{count * itemsize(datatype)}"
        )
    if datatype == BF16:
        halves = np.frombuffer(buffer, _UINT16, count, offset).astype(np.uint32)
        return (halves << 16).view(np.float32)
    if datatype == "BOOL":
        numbers = np.frombuffer(buffer, np.uint8, count, offset)
        # Code that computes with any other byte as a bool has undefined behaviour.
        if count and int(numbers.max()) > 1:
            raise InvalidData("has a byte that is neither 0 nor 1")
        return numbers.view(np.bool_)
    return np.frombuffer(buffer, _DTYPES[datatype], count, offset)


def read_json(datatype: str, data: msgspec.Raw, shape: Sequence[int]) -> Array:
    """Read the elements of a tensor, flat or nested as `shape` says.

    Raises InvalidData, and ApiError UNPROCESSABLE for numbers out of range.
    """
    count = math.prod(shape)
    try:
        values = _FLAT[datatype].decode(data)
    except (ValueError, RecursionError):
        values = _read_nested(datatype, data, shape)
    if len(values) != count:
        raise InvalidData(f"has {len(values)} elements, but its shape needs {count}")
    if datatype == BYTES:
        return _texts(values)
    dtype = np.dtype(np.float32) if datatype == BF16 else _DTYPES[datatype]
    if count > _MANY:
        try:
            with np.errstate(over="ignore"):
                array = np.array(values, dtype)
        except OverflowError:
            raise _out_of_range() from None
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise _out_of_range()
        return array
    try:
        packed = struct.pack(f"<{count}{_CODES[dtype]}", *values)
    except (OverflowError, struct.error):
        raise _out_of_range() from None
    return np.frombuffer(packed, dtype)


def read_elements(datatype: str, elements: Sequence[Any]) -> Array:
    """Read typed elements of a message, in range or not; raise as `read_json` does."""
    if datatype == BYTES:
        try:
            return _texts([element.decode() for element in elements])
        except UnicodeDecodeError:
            raise InvalidData("holds bytes that are not UTF-8") from None
    try:
        # As a list, because numpy would wrap numbers that it reads from a buffer.
        return np.array(list(elements), _DTYPES[datatype])
    except OverflowError:
        raise _out_of_range() from None


def write_json(data: Array) -> bytes:
    """Write the elements as one flat list; NaN, infinity and None are null."""
    flat = data.reshape(-1)
    if data.dtype == object:
        items = flat.tolist()
        return orjson.dumps([None if item is None else _text(item) for item in items])
    if not flat.flags.c_contiguous or not flat.dtype.isnative:
        flat = np.ascontiguousarray(flat, flat.dtype.newbyteorder("="))
    return orjson.dumps(flat, option=orjson.OPT_SERIALIZE_NUMPY)


def write_raw(data: Array) -> bytes | memoryview:
    """Return the elements' bytes, without a copy if memory has the wire's layout.

    Raw elements have no null: a None among texts becomes the empty text.
    """
    if data.dtype == object:
        parts: list[bytes] = []
        for item in data.ravel().tolist():
            text = b"" if item is None else _text(item).encode()
            parts += (len(text).to_bytes(4, "little"), text)
        return b"".join(parts)
    numbers: Any = np.ascontiguousarray(data, data.dtype.newbyteorder("<"))
    return memoryview(numbers.reshape(-1).view(np.uint8))


class InvalidData(ValueError):
    """The elements of a tensor cannot be read; the text continues its name."""


def _read_texts(buffer: memoryview, count: int) -> Array:
    # Checked before anything of that size is allocated.
    if count * 4 > len(buffer):
        raise InvalidData("has fewer bytes than its shape needs")
    texts = []
    start, end = 0, len(buffer)
    for _ in range(count):
        first = start + 4
        stop = first + int.from_bytes(buffer[start:first], "little")
        if first > end or stop > end:
            raise InvalidData("has fewer bytes than its shape and lengths need")
        try:
            texts.append(str(buffer[first:stop], "utf-8"))
        except UnicodeDecodeError:
            raise InvalidData("holds bytes that are not UTF-8") from None
        start = stop
    if start != end:
        raise InvalidData("has more bytes than its shape and lengths need")
    return _texts(texts)


def _texts(values: Sequence[str]) -> Array:
    array = np.empty(len(values), object)
    array[:] = values
    return array


def _text(item: Any) -> str:
    """Return a model's value as text: a string as it is, anything else as JSON."""
    if isinstance(item, bytes):
        return item.decode(errors="replace")
    # Not orjson: it cannot write integers beyond 64 bits.
    text = item if isinstance(item, str) else _encoder.encode(item).decode()
    return text.encode(errors="replace").decode()


def _read_nested(datatype: str, data: msgspec.Raw, shape: Sequence[int]) -> list[Any]:
    try:
        value = msgspec.json.decode(data)
    except RecursionError:
        raise InvalidData("is nested too deeply") from None
    except ValueError:
        # It is JSON, or the request would not have been parsed: a number is too large.
        raise _out_of_range() from None
    if not isinstance(value, list):
        raise InvalidData("must have a list as its `data`")
    level: list[Any] = value
    nested = len(level) > 0 and isinstance(level[0], list)
    for size in shape[1:] if nested else ():
        if not all(isinstance(item, list) and len(item) == size for item in level):
            raise InvalidData("has nested `data` that does not fit its `shape`")
        level = [element for item in level for element in item]
    try:
        elements: list[Any] = msgspec.convert(level, _LISTS[datatype])
    except msgspec.ValidationError:
        if not datatype.startswith(("INT", "UINT")):
            raise _unfit(datatype, level) from None
        elements = _read_whole_floats(datatype, level)
    return elements


def _read_whole_floats(datatype: str, level: list[Any]) -> list[Any]:
    """Read integers, some of which may be written as 3.0."""
    exact = list(map(exact_integer, level))
    try:
        elements: list[Any] = msgspec.convert(exact, _LISTS[datatype])
    except msgspec.ValidationError:
        if any(isinstance(value, float) and value.is_integer() for value in exact):
            raise InvalidData(f"has an element that {ROUNDED}") from None
        raise _unfit(datatype, exact) from None
    return elements


def _unfit(datatype: str, values: list[Any]) -> Exception:
    if _all_numbers(datatype, values):
        return _out_of_range()
    return InvalidData(f"has an element that is not {datatype}")


def _all_numbers(datatype: str, values: list[Any]) -> bool:
    """Return whether all values are numbers, so that only a range can be wrong."""
    kinds = (float, int) if datatype in ("FP16", "FP32", "FP64", BF16) else (int,)
    return datatype not in (BYTES, "BOOL") and all(
        isinstance(value, kinds) and not isinstance(value, bool) for value in values
    )


def _out_of_range() -> ApiError:
    message = "A number is beyond the range of its datatype, or not finite."
    return ApiError(ErrorCode.UNPROCESSABLE, message)


def _element(datatype: str) -> Any:
    if datatype == BYTES:
        return str
    if datatype == "BOOL":
        return bool
    if datatype == BF16 or _DTYPES[datatype].kind == "f":
        return float
    limits = np.iinfo(_DTYPES[datatype])
    return Annotated[int, within(int(limits.min), int(limits.max))]


_CODES = {
    dtype: dtype.char if dtype.char not in "lL" else {"l": "q", "L": "Q"}[dtype.char]
    for dtype in _DTYPES.values()
}
_LISTS: dict[str, Any] = {
    datatype: list[_element(datatype)]  # type: ignore[misc]
    for datatype in (*_DTYPES, BF16, BYTES)
}
_FLAT: dict[str, msgspec.json.Decoder[list[Any]]] = {
    datatype: msgspec.json.Decoder(kind) for datatype, kind in _LISTS.items()
}
