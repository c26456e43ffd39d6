"""How rows of different lengths share a batch, and batches of different sizes. Pure.

The rule, for the decoder and the engine alike: an axis that a signature declares as -1
is filled up at its end with `Padding.value`, in the input named by `Padding.mask_input`
with 0. A decoder fills up the rows of one request to the longest of them; the engine
fills up requests to the next of `Padding.buckets`, so that they share a batch.
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
    """What a version's metadata says about rows of varying length."""

    value: float = 0.0
    # Lengths that rows are filled up to, ascending.
    buckets: tuple[int, ...] = _BUCKETS
    # Input that is 1 where a row has a value and 0 where it was filled up.
    mask_input: str = ""

    @property
    def longest(self) -> int:
        return self.buckets[-1]

    def fill(self, name: str) -> float:
        """Give what the input `name` is filled up with."""
        return 0.0 if name == self.mask_input else self.value

    def bucket(self, length: int) -> int:
        """Give the length that a row is filled up to; raise TooLong."""
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
    """Fill up the rows of `array` to `shape`; give it back if they have it already."""
    if array.shape[1:] == tuple(shape):
        return array
    filled = np.full((len(array), *shape), value, array.dtype)
    filled[tuple(slice(size) for size in array.shape)] = array
    return filled


def stack(rows: Sequence[Array], value: float) -> Array:
    """Make one array of rows, filled up to the longest on every axis."""
    shape = [max(sizes) for sizes in zip(*[row.shape for row in rows], strict=True)]
    stacked = np.full((len(rows), *shape), value, rows[0].dtype)
    for index, row in enumerate(rows):
        stacked[index][tuple([slice(size) for size in row.shape])] = row
    return stacked


def mask(lengths: Sequence[int], dtype: str) -> Array:
    """Make the mask of rows of such lengths: `[rows, longest]`, 1 where a value is."""
    longest = max(lengths)
    marks: Array = np.arange(longest) < np.asarray(lengths)[:, None]
    return marks.astype(dtype)


def row_buckets(most: int, count: int) -> tuple[int, ...]:
    """Choose sizes for batches of up to `most` rows: powers of two, and `most`.

    Where these are more than `count`, the smallest and the largest stay, and others
    at even distances between them.
    """
    sizes = [2**power for power in range(max(most - 1, 0).bit_length())]
    sizes = [size for size in sizes if size < most] + [most]
    if len(sizes) <= count:
        return tuple(sizes)
    if count < 2:
        return (most,)
    step = (len(sizes) - 1) / (count - 1)
    # Rounded up: larger batches are where the time goes.
    return tuple(
        dict.fromkeys(sizes[math.ceil(index * step - 1e-9)] for index in range(count))
    )
