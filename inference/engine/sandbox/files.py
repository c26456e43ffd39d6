"""Hold a process to its files, ports and signals with Landlock.

See the kernel's `Documentation/userspace-api/landlock.rst`. It holds root, too, and
all that the process starts. It restricts neither the modes, owners and times of files
nor Unix sockets with a path; `filters.py` does.
"""

import ctypes
import os
import stat
import struct
from collections.abc import Iterable

from inference.engine.sandbox.rules import (
    SHARED_MEMORY,
    SYSTEM_DEVICES,
    SYSTEM_PATHS,
    SandboxRules,
    our_root,
    python_paths,
)
from inference.installation import system_calls
from inference.installation.walls import (
    LANDLOCK_CREATE_RULESET,
    NETWORK_VERSION,
    SCOPES_VERSION,
)

_ADD_RULE = 445
_RESTRICT_SELF = 446
_PATH_BENEATH = 1
_NET_PORT = 2

_EXECUTE = 1 << 0
_WRITE_FILE = 1 << 1
_READ_FILE = 1 << 2
_READ_DIR = 1 << 3
_REMOVE_DIR = 1 << 4
_REMOVE_FILE = 1 << 5
_MAKE_DIR = 1 << 7
_MAKE_REG = 1 << 8
_MAKE_FIFO = 1 << 10
_MAKE_SYM = 1 << 12
_REFER = 1 << 13
_TRUNCATE = 1 << 14
_IOCTL_DEV = 1 << 15

_READ = _EXECUTE | _READ_FILE | _READ_DIR
# Nobody makes sockets and nodes of devices.
_WRITE = _READ_FILE | _READ_DIR | _WRITE_FILE | _TRUNCATE | _REFER
_WRITE |= _REMOVE_DIR | _REMOVE_FILE | _MAKE_DIR | _MAKE_REG | _MAKE_FIFO | _MAKE_SYM
# Not to list: others' segments have names that nobody guesses.
_SHARE = _READ_FILE | _WRITE_FILE | _TRUNCATE | _REMOVE_FILE | _MAKE_REG
_USE_DEVICE = _READ_FILE | _WRITE_FILE | _IOCTL_DEV
_OF_FILES = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL_DEV
# All rights that each version knows; later versions know these, too.
_KNOWN = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 4: (1 << 15) - 1}
_KNOWN_LATER = (1 << 16) - 1

_BIND_TCP = 1 << 0
_CONNECT_TCP = 1 << 1
_ABSTRACT_SOCKETS = 1 << 0
_SIGNALS = 1 << 1


def restrict(rules: SandboxRules, version: int) -> None:
    """Hold this thread and all that it starts; raises OSError."""
    known = _KNOWN.get(version, _KNOWN_LATER)
    ports = _BIND_TCP if rules.network else _BIND_TCP | _CONNECT_TCP
    attributes = struct.pack(
        "=QQQ",
        known,
        ports if version >= NETWORK_VERSION else 0,
        _ABSTRACT_SOCKETS | _SIGNALS if version >= SCOPES_VERSION else 0,
    )
    ruleset = _with(LANDLOCK_CREATE_RULESET, attributes, len(attributes), 0)
    try:
        _allow(ruleset, rules.readable, _READ & known)
        _allow(ruleset, (rules.scratch, *rules.writable), _WRITE & known)
        _allow(ruleset, rules.devices, _USE_DEVICE & known)
        _allow(ruleset, _existing((*SYSTEM_PATHS, *python_paths())), _READ & known)
        _allow(ruleset, [str(our_root())], _READ_DIR)
        _allow(ruleset, _existing(SYSTEM_DEVICES), _USE_DEVICE & known)
        _allow(ruleset, _existing([SHARED_MEMORY]), _SHARE & known)
        if rules.network and version >= NETWORK_VERSION:
            # Port 0: the kernel chooses one, as for clients.
            port = struct.pack("=QQ", _BIND_TCP, 0)
            _with(_ADD_RULE, port, 0, before=(ruleset, _NET_PORT))
        system_calls.call(_RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)


def _existing(paths: Iterable[str]) -> list[str]:
    return [path for path in paths if os.path.exists(path)]


def _allow(ruleset: int, paths: Iterable[str], rights: int) -> None:
    for path in paths:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
        try:
            folder = stat.S_ISDIR(os.fstat(descriptor).st_mode)
            granted = rights if folder else rights & _OF_FILES
            rule = struct.pack("=Qi", granted, descriptor)
            _with(_ADD_RULE, rule, 0, before=(ruleset, _PATH_BENEATH))
        finally:
            os.close(descriptor)


def _with(
    number: int, structure: bytes, *after: int, before: tuple[int, ...] = ()
) -> int:
    """Make a call that takes the address of a structure."""
    buffer = ctypes.create_string_buffer(structure, len(structure))
    return system_calls.call(number, *before, ctypes.addressof(buffer), *after)
