"""Say what a process with its author's code may reach."""

import site
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec

import inference


class SandboxRules(msgspec.Struct, frozen=True):
    """What a process may reach, beside Python and what the system's libraries read."""

    # Folder that it writes; also its home and its place for temporary files.
    scratch: str
    # Its artifacts, and whatever else it reads and runs.
    readable: tuple[str, ...] = ()
    # Further files and folders that it writes.
    writable: tuple[str, ...] = ()
    # Nodes in /dev of the devices that it computes on.
    devices: tuple[str, ...] = ()
    # Whether it may open connections.
    network: bool = False
    # Largest file that it may write, also its log; 0: no limit.
    scratch_bytes: int = 0
    # Files that it may have open.
    max_files: int = 1024
    # Processes and threads that it may add to those of its user now.
    max_tasks: int = 1024
    # Open files that stay open beside 0, 1 and 2; None: all.
    keep_open: tuple[int, ...] | None = None


# What the C library and usual packages read. No folder here holds credentials, so not
# /etc as a whole.
SYSTEM_PATHS = (
    *("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64"),
    # The dynamic loader.
    *("/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/alternatives"),
    # Names of users, hosts and services; certificates of authorities.
    *("/etc/passwd", "/etc/group", "/etc/nsswitch.conf", "/etc/hosts"),
    *("/etc/host.conf", "/etc/resolv.conf", "/etc/gai.conf", "/etc/services"),
    *("/etc/protocols", "/etc/ssl/certs", "/etc/ssl/openssl.cnf", "/etc/pki/tls"),
    *("/etc/pki/ca-trust", "/etc/ca-certificates"),
    # Time, types of files, fonts, the system's name.
    *("/etc/localtime", "/etc/timezone", "/etc/locale.alias", "/etc/mime.types"),
    *("/etc/fonts", "/var/cache/fontconfig", "/etc/os-release", "/etc/debian_version"),
    # Processors and memory. What it says of other processes beyond their names and
    # arguments, it says only to those that may trace them.
    *("/proc", "/sys/devices", "/sys/fs/cgroup", "/sys/kernel/mm", "/sys/class"),
    *("/sys/bus", "/sys/module/nvidia"),
    *("/dev/urandom", "/dev/random"),
)
SYSTEM_DEVICES = ("/dev/null", "/dev/zero", "/dev/full")
# Semaphores and memory that a process shares with its children.
SHARED_MEMORY = "/dev/shm"


def python_paths() -> Iterator[str]:
    """Name the folders of this Python, its packages and our own code."""
    yield from {sys.prefix, sys.base_prefix, sys.exec_prefix}
    for entry in {*sys.path, site.getusersitepackages()}:
        if Path(entry).name in ("site-packages", "dist-packages"):
            yield entry
    for init in our_root().glob("*/__init__.py"):
        yield str(init.parent)


def our_root() -> Path:
    """Return the folder with our packages.

    It may also hold the installation's own files; to import, one only lists it.
    """
    return Path(inference.__file__).resolve().parents[1]


def device_files(device: str) -> tuple[str, ...]:
    """Return the nodes in /dev of a device; a processor has none."""
    if not device.startswith("cuda"):
        return ()
    return tuple(sorted(str(path) for path in Path("/dev").glob("nvidia*")))
