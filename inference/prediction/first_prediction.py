"""Round the first prediction of a call to a code that tells distributions apart."""

import math
import struct
from typing import Any
from zlib import crc32

from inference.engine.wire.tensors import Prediction

# There is nothing to compare.
NO_CODE = -1
_MOST_OF_A_TEXT = 256
_MOST = 3e38
_float = struct.Struct(">f")
_bits = struct.Struct(">I")


def code_of(prediction: Prediction) -> int:
    """Return a code of two bytes for the first row of the first output.

    A number keeps three digits, and greater numbers have greater codes; text is hashed.
    Of several numbers it is the place of the greatest, which is the class of scores.
    """
    data: Any = prediction.tensors[0].data
    if not data.size:
        return NO_CODE
    row = data[0]
    if data.ndim > 1:
        if row.size > 1:
            return NO_CODE if row.dtype == object else _of_number(int(row.argmax()))
        row = row.reshape(-1)[0]
    value = row.item() if hasattr(row, "item") else row
    if isinstance(value, (int, float)):
        return _of_number(value)
    if isinstance(value, str):
        # A text may hold half a surrogate pair.
        text = value[:_MOST_OF_A_TEXT].encode(errors="surrogatepass")
        return crc32(text) & 0xFFFF
    return NO_CODE


def _of_number(value: float) -> int:
    """Return the first two bytes of a 4-byte float, in the order of the numbers."""
    number = float(value)
    if math.isnan(number):
        return 0xFFFF
    number = min(max(number, -_MOST), _MOST)
    (bits,) = _bits.unpack(_float.pack(number))
    code: int = bits >> 16
    return 0xFFFF - code if code & 0x8000 else code | 0x8000
