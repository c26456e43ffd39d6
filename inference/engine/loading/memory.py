"""Measure a device's memory and how much of it a version takes."""

import ctypes
import gc
from pathlib import Path
from typing import Protocol

import psutil

from inference.engine.devices import found
from inference.installation import disk

# Part of the memory for models if no budget is set; the rest is for batches and others.
_SHARE = 0.8
_CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")


class ModelMemory(Protocol):
    """The memory for models on one device, in bytes."""

    def used(self) -> int: ...

    def capacity(self) -> int: ...


class HostMemory:
    """The memory of this process, for models on the CPU."""

    def used(self) -> int:
        return int(psutil.Process().memory_info().rss)

    def capacity(self) -> int:
        return int(min(psutil.virtual_memory().total, _cgroup_limit()) * _SHARE)


class CudaMemory:
    """The memory of a GPU, as torch's allocator counts it."""

    def __init__(self, device: str) -> None:
        self._device = device

    def used(self) -> int:
        import torch

        return int(torch.cuda.memory_allocated(self._device))

    def capacity(self) -> int:
        # Ask the driver: torch takes a second to import.
        return int(found.memory_bytes(self._device) * _SHARE)


def of_device(device: str) -> ModelMemory:
    return CudaMemory(device) if device.startswith("cuda") else HostMemory()


def artifact_bytes(path: str) -> int:
    """Return the bytes of an artifact's files: about the memory its model needs."""
    return disk.file_bytes(Path(path))


def collect() -> None:
    """Free unloaded models, which reference cycles keep, and return their memory."""
    gc.collect()
    trim()


def settle() -> None:
    """Exclude the permanent objects of libraries from later garbage collections.

    Otherwise each full collection would delay all requests by a tenth of a second.
    """
    gc.collect()
    gc.freeze()


def trim() -> None:
    """Return free memory to the system; glibc would keep freed pages."""
    malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if malloc_trim is not None:
        malloc_trim(0)


def _cgroup_limit() -> float:
    try:
        return float(_CGROUP_LIMIT.read_text())
    except (OSError, ValueError):  # no cgroup v2, or "max"
        return float("inf")
