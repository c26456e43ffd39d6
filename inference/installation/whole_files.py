"""Replace files whole, so that a reader or a kill never meets half of one."""

import os
from pathlib import Path
from typing import TypeVar

import msgspec

T = TypeVar("T")


def read(path: Path, decoder: msgspec.json.Decoder[T]) -> T | None:
    """Return what a file of JSON holds; None if it is missing or unreadable."""
    try:
        return decoder.decode(path.read_bytes())
    except (OSError, msgspec.DecodeError):
        return None


def write(path: Path, data: bytes, *, durable: bool = True) -> None:
    """Replace a file; `durable`: it also survives a power failure. Raises OSError."""
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    with partial.open("wb") as file:
        file.write(data)
        if durable:
            file.flush()
            os.fsync(file.fileno())
    partial.replace(path)
    if durable:
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
