"""Note which inputs that may be left out a request has used: names, never values."""

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from inference.codecs.decoding import DecodedRequest
from inference.engine.signatures.signature import Column, Layout, Signature
from inference.engine.wire.tensors import Array, Tensor
from registry.rules import optional_inputs


class OptionalInputs:
    """The optional columns and the parameters of one model version."""

    def __init__(self, signature: Signature, bits: dict[str, int]) -> None:
        self._params = {
            param.name: bits[optional_inputs.parameter(param.name)]
            for param in signature.params
        }
        # Position and bit of each optional column of the only tensor, or by name.
        self._places: list[tuple[int, int]] = []
        self._names: dict[str, int] = {}
        for place, column in enumerate(signature.columns):
            if not _is_optional(column):
                continue
            if signature.layout is Layout.MATRIX:
                self._places.append((place, bits[column.name]))
            else:
                self._names[column.name] = bits[column.name]

    def used(self, decoded: DecodedRequest) -> int:
        """Return the bits of what a request has sent.

        A column counts if one row has a value for it; null is no value. Integers of a
        tensor with named columns cannot be told from missing values, so they count.
        """
        mask = 0
        for name in decoded.params or ():
            mask |= self._params.get(name, 0)
        if not decoded.rows:
            return mask
        if self._names:
            return mask | self._used_columns(decoded.tensors)
        if self._places:
            mask |= self._used_places(decoded.tensors[0].data)
        return mask

    def _used_places(self, data: Array) -> int:
        """Read the first row at once, and other rows for what it lacks."""
        mask = 0
        first = data[0].tolist() if data.dtype.kind == "f" else None
        for place, bit in self._places:
            has = first is not None and not math.isnan(first[place])
            if has or _has_values(data[:, place]):
                mask |= bit
        return mask

    def _used_columns(self, tensors: Iterable[Tensor]) -> int:
        mask = 0
        for tensor in tensors:
            bit = self._names.get(tensor.name, 0)
            if bit and _has_values(tensor.data):
                mask |= bit
        return mask


def optional_inputs_of(signature: Signature) -> OptionalInputs | None:
    """Return None for a version whose callers must send all inputs."""
    columns = [column.name for column in signature.columns if _is_optional(column)]
    params = [param.name for param in signature.params]
    if not columns and not params:
        return None
    return OptionalInputs(signature, optional_inputs.bits_of(columns, params))


def _is_optional(column: Column) -> bool:
    """Return what the version says, so that a route's rules move no bit."""
    return not column.required or column.required_by_route


def _has_values(data: Array) -> bool:
    kind = data.dtype.kind
    if kind == "f":
        # The first row says enough of most calls; for one value numpy takes long.
        if not math.isnan(data.item(0)):
            return True
        return len(data) > 1 and not bool(np.isnan(data).all())
    if kind == "M":
        # `item(0)` would not do: of nanoseconds it is a number, whatever is missing.
        return not (bool(np.isnat(data[0])) and bool(np.isnat(data).all()))
    if kind == "O":
        if data.item(0) is not None:
            return True
        values: list[Any] = data.tolist()
        return any(value is not None for value in values)
    return True
