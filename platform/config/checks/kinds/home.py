"""Look at the home: who may write it, and how much room its disk has."""

import contextlib
import itertools
import os
import pwd
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from django.conf import settings

from config.checks.finding import Finding, fault, or_well, warning
from inference.installation.home import Home

TITLE = "Home"
_GB = 1024**3
_LEAST_FREE_BYTES = _GB // 4
_FEW_FREE_BYTES = 5 * _GB
_FEW = 0.1
_LEAST_INODES = 1000
# Files of one folder whose owners are looked at.
_LOOKED_AT = 1000

MISSING = fault(
    "home-missing",
    "There is no folder {root}.",
    cost="Nothing starts.",
    mend="sudo install -d -o modelyard -g modelyard -m 0700 {root}",
)
WRONG_USER = warning(
    "wrong-user",
    "You are {user}, but {root} belongs to {owner}.",
    cost="The service cannot change files that your commands leave there.",
    mend="sudo modelyard check",
)
NOT_WRITABLE = fault(
    "home-not-writable",
    "{user} cannot write {path}: {reason}.",
    cost="Processes that start end at once, and usage of calls cannot be kept.",
    mend="sudo chown -R {owner}: {root} && sudo chmod u+rwX {root}",
)
READ_ONLY = fault(
    "home-read-only",
    "The disk of {path} is mounted read-only.",
    cost="Processes that start end at once, and usage of calls cannot be kept.",
    mend="sudo dmesg | tail; sudo mount -o remount,rw {path}",
)
FOREIGN_FILES = warning(
    "foreign-files",
    "In {root}, files do not belong to {owner}: {count}, first {path}.",
    cost="The service may be unable to read or replace them.",
    mend="sudo chown -R {owner}: {root}",
)
DISK_FULL = fault(
    "disk-full",
    "The disk of {root} is full: {free} are free.",
    cost="Usage cannot be written, so nothing is predicted; jobs and uploads fail.",
    mend="sudo du -xah --max-depth=1 {root} | sort -h",
)
DISK_LOW = warning(
    "disk-low",
    "The disk of {root} has only {free} left, {percent:.0f} %.",
    cost="Once it is full, nothing is predicted.",
    mend="sudo du -xah --max-depth=1 {root} | sort -h",
)
INODES_LOW = fault(
    "inodes-low",
    "The disk of {root} has room for only {free} more files.",
    cost="New files cannot be made, though bytes are free: nothing is predicted then.",
    mend="sudo du -xa --inodes --max-depth=1 {root} | sort -n",
)
PROBLEMS = (
    MISSING,
    WRONG_USER,
    NOT_WRITABLE,
    READ_ONLY,
    FOREIGN_FILES,
    DISK_FULL,
    DISK_LOW,
    INODES_LOW,
)


@dataclass(frozen=True, slots=True)
class HomeFacts:
    root: str
    user: str = ""
    owner: str = ""
    exists: bool = True
    # Its folders are for a group of users, as in containers, and this user is in it.
    shared: bool = False
    read_only: bool = False
    # The first folder that cannot be written, and why.
    unwritable: str = ""
    reason: str = ""
    foreign: tuple[str, ...] = ()
    free_bytes: int = _GB * 1000
    total_bytes: int = _GB * 1000
    # None: the file system has no limit.
    free_files: int | None = None


def look() -> list[Finding]:
    return judge(facts(settings.HOME))


def judge(facts: HomeFacts) -> list[Finding]:
    root, owner = facts.root, facts.owner
    if not facts.exists:
        return [MISSING.found(root=root)]
    found = []
    if facts.user != owner and not facts.shared:
        found.append(WRONG_USER.found(user=facts.user, root=root, owner=owner))
    if facts.read_only:
        found.append(READ_ONLY.found(path=root))
    elif facts.unwritable:
        found.append(
            NOT_WRITABLE.found(
                user=facts.user,
                path=facts.unwritable,
                reason=facts.reason,
                owner=owner,
                root=root,
            )
        )
    if facts.foreign:
        found.append(
            FOREIGN_FILES.found(
                root=root,
                count=len(facts.foreign),
                owner=owner,
                path=facts.foreign[0],
            )
        )
    free = in_bytes(facts.free_bytes)
    percent = 100 * facts.free_bytes / max(1, facts.total_bytes)
    few = facts.free_bytes < min(_FEW_FREE_BYTES, _FEW * facts.total_bytes)
    # A small disk is not full as long as a tenth of it is free.
    if few and facts.free_bytes < _LEAST_FREE_BYTES:
        found.append(DISK_FULL.found(root=root, free=free))
    elif few:
        found.append(DISK_LOW.found(root=root, free=free, percent=percent))
    if facts.free_files is not None and facts.free_files < _LEAST_INODES:
        found.append(INODES_LOW.found(root=root, free=facts.free_files))
    return or_well(found, f"{root} can be written, and {free} are free.")


def facts(home: Home) -> HomeFacts:
    root, user = str(home.root), _user(os.geteuid())
    try:
        found = home.root.stat()
        disk = os.statvfs(home.root)
    except FileNotFoundError:
        return HomeFacts(root, exists=False)
    except OSError as error:
        return HomeFacts(root, user=user, unwritable=root, reason=error.strerror or "")
    group = bool(found.st_mode & stat.S_ISGID)
    owner = _owner(home.root, found)
    unwritable = _unwritable(home)
    return HomeFacts(
        root,
        user=user,
        owner=_user(owner),
        shared=group and found.st_gid in {os.getegid(), *os.getgroups()},
        unwritable=unwritable,
        reason="its mode forbids it",
        read_only=bool(disk.f_flag & os.ST_RDONLY),
        foreign=tuple(_foreign(home.root, found, owner=owner, by_group=group)),
        free_bytes=disk.f_bavail * disk.f_frsize,
        total_bytes=disk.f_blocks * disk.f_frsize,
        free_files=disk.f_favail if disk.f_files else None,
    )


def _unwritable(home: Home) -> str:
    """Return the first folder that this user cannot write."""
    folders = (home.root, home.spool, home.run, home.jobs, home.logs, home.engine)
    for folder in folders:
        try:
            found = folder.exists()
        except PermissionError:
            return str(home.root)
        if found and not os.access(folder, os.W_OK | os.X_OK):
            return str(folder)
    return ""


def _owner(root: Path, of_root: os.stat_result) -> int:
    """Return the id of the user that runs Modelyard, to whom the home should belong.

    A folder that root took is known by a file that the service made in it. If root took
    everything, the home is that of a user of this machine, as docs/install.md makes it.
    """
    if of_root.st_uid != 0:
        return of_root.st_uid
    with contextlib.suppress(OSError):
        if maker := (root / "home_id").stat().st_uid:
            return maker
    homes = {user.pw_dir: user.pw_uid for user in pwd.getpwall()}
    return homes.get(str(root), os.geteuid())


def _foreign(
    root: Path, of_root: os.stat_result, *, owner: int, by_group: bool
) -> Iterator[str]:
    """Yield what belongs to others than the home should, down to its second level."""
    if of_root.st_uid != owner and not by_group:
        yield str(root)
    pending = [root]
    while pending:
        folder = pending.pop()
        try:
            entries = list(itertools.islice(os.scandir(folder), _LOOKED_AT))
        except OSError:
            continue
        for entry in entries:
            try:
                found = entry.stat(follow_symlinks=False)
            except OSError:
                continue
            other = (
                found.st_gid != of_root.st_gid if by_group else found.st_uid != owner
            )
            if other:
                yield entry.path
            if folder == root and entry.is_dir(follow_symlinks=False):
                pending.append(Path(entry.path))


def _user(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return f"user {number}"


def in_bytes(number: int) -> str:
    for unit, size in (("GB", _GB), ("MB", 1024**2)):
        if number >= size:
            return f"{number / size:.1f} {unit}"
    return f"{number / 1024:.0f} kB" if number >= 1024 else f"{number} bytes"
