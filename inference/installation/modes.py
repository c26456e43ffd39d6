"""Decide who may use the files of a home: its user alone, or the user's group, too.

A home is private to its user. In containers, processes of different users share a home
through a group: its root folder has the setgid bit, and the kernel gives bit and group
to every folder that is made inside.
"""

import errno
import os
import stat
from pathlib import Path

_UMASK_OF_A_GROUP = 0o007
# The kernel passes the setgid bit on even to folders that are closed to the group.
_SHARED = stat.S_ISGID | stat.S_IRWXG


def is_shared(folder: Path) -> bool:
    """Return whether a group uses the folder; False if it is not there."""
    try:
        return folder.stat().st_mode & _SHARED == _SHARED
    except OSError:
        return False


def of_files(folder: Path) -> int:
    """Return the mode of files and sockets in a folder that other processes open."""
    return 0o660 if is_shared(folder) else 0o600


def close_to_others(folder: Path) -> None:
    """Take away what other users may do with a folder of this installation.

    Raises OSError, also for a folder that all users share.
    """
    mode = folder.stat().st_mode
    if mode & stat.S_ISVTX:
        raise PermissionError(errno.EPERM, "all users share this folder", folder)
    if not is_shared(folder):
        if mode & 0o077:
            folder.chmod(0o700)
        return
    # What this process writes from here on is for the group.
    os.umask(_UMASK_OF_A_GROUP)
    if mode & 0o007 and folder.stat().st_uid == os.geteuid():
        folder.chmod(0o2770)
