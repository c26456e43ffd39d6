"""Convert numpy arrays to torch tensors on the CPU and back, mostly without copies."""

from collections.abc import Sequence
from typing import Any

import torch

from inference.engine.wire.tensors import Array


def as_tensors(arrays: Sequence[Array]) -> tuple[torch.Tensor, ...]:
    return tuple([torch.from_numpy(_usable(array)) for array in arrays])


def as_array(value: torch.Tensor) -> Array:
    """Return a tensor of any device as a numpy array; bfloat16 becomes float32."""
    if value.dtype is torch.bfloat16:  # numpy lacks this dtype
        value = value.float()
    array: Array = value.detach().cpu().numpy()
    return array


def _usable(array: Array) -> Any:
    flags = array.flags
    # Arrays from a socket are read-only, and models may write into their input.
    if flags.writeable and flags.aligned and flags.c_contiguous:
        return array
    return array.copy()
