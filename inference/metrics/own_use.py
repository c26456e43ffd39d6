"""Measure what this process uses."""

import os
import resource
import time
from pathlib import Path

import msgspec

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_SELF = Path("/proc/self")
_STARTED_AT = time.time()


class OwnUse(msgspec.Struct, frozen=True):
    """What a process uses; 0 where the system does not tell."""

    cpu_s: float = 0.0
    resident_bytes: int = 0
    open_files: int = 0
    open_files_limit: int = 0
    # Seconds since the epoch.
    started_at: float = 0.0


def own_use() -> OwnUse:
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return OwnUse(
        time.process_time(), _resident_bytes(), open_files(), limit, _STARTED_AT
    )


def open_files() -> int:
    try:
        return len(os.listdir(_SELF / "fd"))
    except OSError:
        return 0


def _resident_bytes() -> int:
    try:
        return int((_SELF / "statm").read_text().split()[1]) * _PAGE_BYTES
    except (OSError, IndexError):
        return 0
