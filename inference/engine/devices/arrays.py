"""Numpy arrays as torch tensors on the processor, and back, without copies."""

from collections.abc import Sequence
from typing import Any

import torch

from inference.engine.wire.tensors import Array


def as_tensors(arrays: Sequence[Array]) -> tuple[torch.Tensor, ...]:
    return tuple([torch.from_numpy(_usable(array)) for array in arrays])


def as_array(value: torch.Tensor) -> Array:
    """Give an output as numpy has it, from whatever device."""
    if value.dtype is torch.bfloat16:  # numpy has no such type
        value = value.float()
    array: Array = value.detach().cpu().numpy()
    return array


def _usable(array: Array) -> Any:
    flags = array.flags
    # What arrived is read-only, and models may write into their input.
    if flags.writeable and flags.aligned and flags.c_contiguous:
        return array
    return array.copy()
