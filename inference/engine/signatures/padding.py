"""Pad rows of different lengths so that they share a batch, and choose batch sizes.

The decoder and the engine follow one rule: an axis that a signature declares as -1 is
padded at its end with `Padding.value`, or with 0 in the input `Padding.mask_input`. A
decoder pads the rows of one request to the longest of them; the engine pads requests
to the next of `Padding.buckets`, so that they share a batch.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

_BUCKETS = (16, 32, 64, 128, 256, 512)


class TooLong(ValueError):
    """A row is longer than the largest bucket; the text names the limit."""

    def __init__(self, length: int, longest: int) -> None:
        super().__init__(f"{length} values in a row; {longest} are the most")
        self.length = length
        self.longest = longest


class Padding(msgspec.Struct, frozen=True, omit_defaults=True):
    """A version's settings for rows of varying length, from its metadata."""

    value: float = 0.0
    # Lengths to which rows are padded, ascending.
    buckets: tuple[int, ...] = _BUCKETS
    # Input that is 1 where a row has a value and 0 where it was padded.
    mask_input: str = ""

    @property
    def longest(self) -> int:
        return self.buckets[-1]

    def fill(self, name: str) -> float:
        """Return the value that pads the input `name`."""
        return 0.0 if name == self.mask_input else self.value

    def bucket(self, length: int) -> int:
        """Return the length to which a row is padded; raise TooLong."""
        for bucket in self.buckets:
            if length <= bucket:
                return bucket
        raise TooLong(length, self.longest)


def from_metadata(metadata: Mapping[str, Any]) -> Padding:
    """Read the member `padding` of a version's metadata."""
    return Padding(
        value=metadata.get("value", 0.0),
        buckets=tuple(sorted(set(metadata.get("buckets", _BUCKETS)))),
        mask_input=metadata.get("mask_input", ""),
    )


def fill_up(array: Array, shape: Sequence[int], value: float) -> Array:
    """Pad the rows of `array` to `shape`; return it unchanged if they have it."""
    if array.shape[1:] == tuple(shape):
        return array
    filled = np.full((len(array), *shape), value, array.dtype)
    filled[tuple(slice(size) for size in array.shape)] = array
    return filled


def stack(rows: Sequence[Array], value: float) -> Array:
    """Make one array of rows, padded to the longest on every axis."""
    shape = [max(sizes) for sizes in zip(*[row.shape for row in rows], strict=True)]
    stacked = np.full((len(rows), *shape), value, rows[0].dtype)
    for index, row in enumerate(rows):
        stacked[index][tuple([slice(size) for size in row.shape])] = row
    return stacked


def mask(lengths: Sequence[int], dtype: str) -> Array:
    """Make the mask for rows of these lengths: `[rows, longest]`, 1 for a value."""
    longest = max(lengths)
    marks: Array = np.arange(longest) < np.asarray(lengths)[:, None]
    return marks.astype(dtype)


def row_buckets(most: int, count: int) -> tuple[int, ...]:
    """Choose sizes for batches of up to `most` rows: powers of two, and `most`.

    If there are more than `count`, keep the smallest, the largest, and some at even
    distances between them.
    """
    sizes = [2**power for power in range(max(most - 1, 0).bit_length())]
    sizes = [size for size in sizes if size < most] + [most]
    if len(sizes) <= count:
        return tuple(sizes)
    if count < 2:
        return (most,)
    step = (len(sizes) - 1) / (count - 1)
    # Rounded up, because most time goes into larger batches.
    return tuple(
        dict.fromkeys(sizes[math.ceil(index * step - 1e-9)] for index in range(count))
    )
