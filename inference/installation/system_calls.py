"""Make the kernel's calls for which Python has no function."""

import ctypes
import functools
import os


@functools.cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def call(number: int, *arguments: int | None) -> int:
    """Make a system call with numbers or addresses; raises OSError."""
    return _checked(_libc().syscall(*map(ctypes.c_long, (number, *_plain(arguments)))))


def prctl(option: int, *arguments: int) -> int:
    """Call prctl(2), which wants all five arguments; raises OSError."""
    padded = (*arguments, 0, 0, 0, 0)[:4]
    return _checked(_libc().prctl(option, *map(ctypes.c_ulong, padded)))


def set_capabilities(header: bytes, sets: bytes) -> None:
    """Call capset(2); raises OSError."""
    _checked(_libc().capset(header, sets))


def _plain(arguments: tuple[int | None, ...]) -> tuple[int, ...]:
    return tuple(argument or 0 for argument in arguments)


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
