"""Find environments on the disk, and what is installed in them."""

import functools
import hashlib
import importlib.metadata
import platform
from pathlib import Path

import msgspec
from packaging.utils import canonicalize_name

from inference.environments.comparing import Installed
from inference.installation import whole_files

_MARK = "ready.json"


class Built(msgspec.Struct, frozen=True):
    """The mark of an environment that is complete."""

    python: str
    packages: dict[str, str]
    size_bytes: int = 0

    def installed(self) -> Installed:
        return Installed(python=self.python, packages=self.packages)


_decoder = msgspec.json.Decoder(Built)


@functools.cache
def base() -> Installed:
    """Return what this installation has; it changes only while nothing runs."""
    packages: dict[str, str] = {
        canonicalize_name(distribution.name): distribution.version
        for distribution in importlib.metadata.distributions()
        # A package that is being removed may have no name.
        if distribution.name
    }
    return Installed(python=platform.python_version(), packages=packages)


@functools.cache
def base_digest() -> str:
    packages = sorted(base().packages.items())
    content = msgspec.json.encode([base().python, packages])
    return hashlib.sha256(content).hexdigest()[:16]


def built(folder: Path) -> Built | None:
    """Return what was installed; None while the environment is not complete."""
    return read_list(folder / _MARK)


def read_list(path: Path) -> Built | None:
    """Read what an environment listed of itself; None if there is no such list."""
    return whole_files.read(path, _decoder)


def mark_ready(folder: Path, built: Built) -> None:
    whole_files.write(folder / _MARK, msgspec.json.encode(built))


def unmark(folder: Path) -> None:
    (folder / _MARK).unlink(missing_ok=True)


def is_ready(folder: Path) -> bool:
    return (folder / _MARK).is_file()
