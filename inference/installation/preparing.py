"""Prepare the home of a process, and say in a sentence why that is impossible."""

import errno
import os
import stat
import sys
from collections.abc import Mapping
from typing import NoReturn

from inference.installation import volumes
from inference.installation.home import Home


class HomeUnusable(Exception):
    """No process can run with this home; the text tells the operator why."""


def prepare(home: Home, environment: Mapping[str, str]) -> None:
    """Create what is missing in the home; raise HomeUnusable if it cannot be used."""
    needs_volume = environment.get("MODELYARD_NEEDS_VOLUME", "").lower() == "true"
    if needs_volume and not volumes.is_mounted(home.root):
        raise HomeUnusable(
            f"No volume is mounted at MODELYARD_HOME={home.root}, so its files would "
            "vanish with this container. Mount the volume that all processes share."
        )
    try:
        home.prepare()
    except OSError as error:
        raise HomeUnusable(
            f"MODELYARD_HOME={home.root} cannot be written ({error.strerror}). "
            f"{_remedy(home, error)}"
        ) from error


def prepare_or_exit(home: Home, environment: Mapping[str, str]) -> None:
    try:
        prepare(home, environment)
    except HomeUnusable as error:
        exit_with(str(error))


def exit_with(sentence: str) -> NoReturn:
    sys.stderr.write(f"{sentence}\n")
    # A setting or a volume must change before another start can succeed.
    sys.exit(os.EX_CONFIG)


def _remedy(home: Home, error: OSError) -> str:
    if error.errno == errno.EROFS:
        return "Mount a volume there that can be written."
    for folder in (home.root, *home.root.parents):
        try:
            found = folder.stat()
        except OSError:
            continue
        break
    return (
        "It must belong to the user that runs Modelyard, or have a group of that user "
        f"and the mode 2770. This is user {os.geteuid()} with group {os.getegid()}; "
        f"{folder} belongs to {found.st_uid}:{found.st_gid} and has the mode "
        f"{stat.S_IMODE(found.st_mode):o}."
    )
