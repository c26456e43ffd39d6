"""Read arrays from NPY files."""

import io
import math

import numpy as np
from numpy.lib import format as npy_format

from inference.engine.wire.tensors import Array
from inference.errors import refusals

_MAX_HEADER_BYTES = 10_000


def read(content: bytes) -> Array:
    """Return the array of numbers in an NPY file, without a copy; raise ApiError.

    numpy's own reader is not safe here: it allocates as much as the header claims.
    """
    file = io.BytesIO(content)
    try:
        version = npy_format.read_magic(file)
        if version not in ((1, 0), (2, 0)):
            raise ValueError(version)
        read_header = (
            npy_format.read_array_header_1_0
            if version == (1, 0)
            else npy_format.read_array_header_2_0
        )
        shape, fortran, dtype = read_header(file, max_header_size=_MAX_HEADER_BYTES)
    except (ValueError, SyntaxError, RecursionError, MemoryError, OverflowError):
        raise refusals.invalid(
            "The file is not a NumPy array (.npy, format 1.0 or 2.0)."
        ) from None
    start = file.tell()
    if dtype.kind not in "biuf" or not shape:
        raise refusals.invalid("The array must hold numbers and have rows.")
    if math.prod(shape) * dtype.itemsize != len(content) - start:
        raise refusals.invalid("The file's length does not fit its shape.")
    flat = np.frombuffer(content, dtype, offset=start)
    return flat.reshape(shape, order="F" if fortran else "C")
