"""Count the bytes of folders."""

import contextlib
import os
from pathlib import Path


def file_bytes(folder: Path) -> int:
    """Return the length of all files in a folder; 0 if there is no such folder."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def used_bytes(folder: Path, *, most_files: int | None = None) -> int | None:
    """Return what a folder takes on the disk; links are not followed.

    None: it has more files than `most_files`, or folders that cannot be read.
    """
    total = files = 0
    waiting = [os.fspath(folder)]
    while waiting:
        try:
            with os.scandir(waiting.pop()) as entries:
                for entry in entries:
                    files += 1
                    if most_files is not None and files > most_files:
                        return None
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
                        continue
                    with contextlib.suppress(FileNotFoundError):
                        total += entry.stat(follow_symlinks=False).st_blocks * 512
        except (FileNotFoundError, NotADirectoryError):
            continue  # it was removed meanwhile
        except OSError:
            return None
    return total
