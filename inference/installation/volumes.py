"""Find out whether a container has the volume that keeps its files."""

from pathlib import Path

_MOUNTS = Path("/proc/self/mountinfo")
# Mount points write spaces and a few other characters as octal numbers.
_ESCAPES = {r"\040": " ", r"\011": "\t", r"\012": "\n", r"\134": "\\"}


def is_mounted(folder: Path, *, mounts: Path = _MOUNTS) -> bool:
    """Return whether a folder, one above it or one in it is a mount of its own.

    The root file system does not count. Parts of a volume may be mounted separately.
    """
    for line in mounts.read_text().splitlines():
        # Field 5 of proc_pid_mountinfo(5).
        point = line.split(" ")[4]
        for escape, character in _ESCAPES.items():
            point = point.replace(escape, character)
        found = Path(point)
        if found != Path("/") and (
            folder.is_relative_to(found) or found.is_relative_to(folder)
        ):
            return True
    return False
