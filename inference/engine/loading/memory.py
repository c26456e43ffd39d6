"""What a device's memory holds, and how much one version takes of it."""

import ctypes
import gc
from pathlib import Path
from typing import Protocol

import psutil

from inference.engine.devices import found

# Of the machine's memory, when no budget is set: the rest is for batches and others.
_SHARE = 0.8
_CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")


class ModelMemory(Protocol):
    """The memory that models of one device live in, in bytes."""

    def used(self) -> int: ...

    def capacity(self) -> int: ...


class HostMemory:
    """The process's own, for models that run on the CPU."""

    def used(self) -> int:
        return int(psutil.Process().memory_info().rss)

    def capacity(self) -> int:
        return int(min(psutil.virtual_memory().total, _cgroup_limit()) * _SHARE)


class CudaMemory:
    """A GPU's, as torch's allocator counts it. torch is only imported here."""

    def __init__(self, device: str) -> None:
        self._device = device

    def used(self) -> int:
        import torch

        return int(torch.cuda.memory_allocated(self._device))

    def capacity(self) -> int:
        # The driver knows without torch, which takes a second to import.
        return int(found.memory_bytes(self._device) * _SHARE)


def of_device(device: str) -> ModelMemory:
    return CudaMemory(device) if device.startswith("cuda") else HostMemory()


def artifact_bytes(path: str) -> int:
    """Bytes of a folder's files: about what its model takes, before it was loaded."""
    return sum(file.stat().st_size for file in Path(path).rglob("*") if file.is_file())


def collect() -> None:
    """Free what only cycles hold, as models that were unloaded, and give it back."""
    gc.collect()
    trim()


def settle() -> None:
    """Leave what libraries made for good out of later searches for garbage.

    Each of those would hold up every request for a tenth of a second otherwise.
    """
    gc.collect()
    gc.freeze()


def trim() -> None:
    """Give back what is free: glibc keeps freed pages for itself."""
    malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if malloc_trim is not None:
        malloc_trim(0)


def _cgroup_limit() -> float:
    try:
        return float(_CGROUP_LIMIT.read_text())
    except (OSError, ValueError):  # no cgroup v2, or "max"
        return float("inf")
