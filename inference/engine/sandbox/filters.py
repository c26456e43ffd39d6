"""Refuse system calls by seccomp's filters, for a process and all that it starts.

All calls pass but those in these tables. Each was chosen because it reaches other
processes of the same user, whole folders or the kernel's rarely used parts, and
because no package needs it to predict.
"""

import ctypes
import errno
import socket
import struct
from collections.abc import Iterator

from inference.installation import system_calls
from inference.installation.walls import Architecture

# Numbers of system calls on x86-64 and on 64-bit ARM; None: there is no such call.
_NUMBERS: dict[str, tuple[int | None, int | None]] = {
    # Look into others.
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "pidfd_getfd": (438, 438),
    "kcmp": (312, 272),
    # Parts of the kernel with a long history of faults, and rings that pass filters by.
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    # Mounts and namespaces.
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "move_mount": (429, 429),
    "open_tree": (428, 428),
    "fsopen": (430, 430),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "unshare": (272, 97),
    "setns": (308, 268),
    # The user's keys, and files by their numbers instead of their names.
    "keyctl": (250, 219),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "open_by_handle_at": (304, 265),
    # Memory and queues that all processes of a user share.
    "shmget": (29, 194),
    "shmat": (30, 196),
    "shmctl": (31, 195),
    "semget": (64, 190),
    "semop": (65, 193),
    "semtimedop": (220, 192),
    "semctl": (66, 191),
    "msgget": (68, 186),
    "msgsnd": (69, 189),
    "msgrcv": (70, 188),
    "msgctl": (71, 187),
    "mq_open": (240, 180),
    "mq_unlink": (241, 181),
    # Names of files in folders that Landlock closes.
    "inotify_add_watch": (254, 27),
    "fanotify_init": (300, 262),
    # Landlock before its third version does not know it.
    "truncate": (76, 45),
}

# Modes, owners, times and attributes of files, which Landlock does not restrict. Who
# copies or unpacks files sets them and would fail, so these calls do nothing and
# succeed.
_IGNORED: dict[str, tuple[int | None, int | None]] = {
    "chmod": (90, None),
    "fchmod": (91, 52),
    "fchmodat": (268, 53),
    "fchmodat2": (452, 452),
    "chown": (92, None),
    "fchown": (93, 55),
    "lchown": (94, None),
    "fchownat": (260, 54),
    "utime": (132, None),
    "utimes": (235, None),
    "futimesat": (261, None),
    "utimensat": (280, 88),
    "setxattr": (188, 5),
    "lsetxattr": (189, 6),
    "fsetxattr": (190, 7),
    "setxattrat": (463, 463),
    "removexattr": (197, 14),
    "lremovexattr": (198, 15),
    "fremovexattr": (199, 16),
    "removexattrat": (466, 466),
    "file_setattr": (469, 469),
}

# The first argument of these is a process or a thread; 0 is the caller. Who pins its
# own threads names them and would fail, so for others than 0 they do nothing.
_SCHEDULING = ((203, 122), (144, 119), (142, 118), (314, 274))
# The first argument says what the second names: a process, a group or a user.
_SETPRIORITY = (141, 140)
_PRIORITY_OF_PROCESS = 0
_IOPRIO_SET = (251, 30)
_IO_PRIORITY_OF_PROCESS = 1
# Process, resource, new limit, old limit.
_PRLIMIT = (302, 261)
_IOCTL = (16, 29)
# Puts characters into the terminal of whoever started this process.
_TIOCSTI = 0x5412
_TIOCLINUX = 0x541C
_CLONE = (56, 220)
# Its flags are in memory, where no filter sees them: without it the C library uses
# clone.
_CLONE3 = (435, 435)
# Flags CLONE_NEW* of namespaces.
_NAMESPACES = 0x7E02_0000
_SOCKET = (41, 198)
_SOCKETPAIR = (53, 199)
_CONNECT = (42, 203)
_BIND = (49, 200)
_AF_NETLINK = 16
_TYPE_OF_SOCKET = 0xF

# Classic BPF: load a word, jump if it is equal, at least, or has a bit; compute; end.
_LOAD, _EQUAL, _AT_LEAST, _HAS_BIT, _AND, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x54, 0x06
_ALLOW = 0x7FFF_0000
_ERROR = 0x0005_0000
_REFUSE = _ERROR | errno.EPERM
_IGNORE = _ERROR | 0
_UNKNOWN = _ERROR | errno.ENOSYS
# The other numbering of x86-64, x32, would pass these tables by.
_X32 = 0x4000_0000

_SET_FILTER = 1
# All threads; and without the slow guard against speculation of kernels before 5.16,
# which protects a process from its own scripts.
_FLAGS = 1 | 4

Step = tuple[int, int, int, int]


def restrict(architecture: Architecture, *, network: bool) -> None:
    """Refuse what these tables name, from now on; raises OSError."""
    packed = b"".join(
        struct.pack("=HBBI", *step) for step in program(architecture, network=network)
    )
    steps = ctypes.create_string_buffer(packed, len(packed))
    descriptor = struct.pack("@HP", len(packed) // 8, ctypes.addressof(steps))
    buffer = ctypes.create_string_buffer(descriptor, len(descriptor))
    result = system_calls.call(
        architecture.seccomp, _SET_FILTER, _FLAGS, ctypes.addressof(buffer)
    )
    if result:
        raise RuntimeError(f"Thread {result} has another filter of system calls.")


def program(architecture: Architecture, *, network: bool) -> Iterator[Step]:
    """Yield the filter: code, jumps if true and if false, and operand of each step."""
    yield _LOAD, 0, 0, 4  # the numbering of the call
    yield _EQUAL, 1, 0, architecture.audit
    yield _return(_REFUSE)
    yield _LOAD, 0, 0, 0  # the number of the call
    yield _AT_LEAST, 0, 1, _X32
    yield _return(_REFUSE)
    for numbers, block in _blocks(network):
        number = numbers[architecture.column]
        if number is None:
            continue
        yield _EQUAL, 0, len(block), number
        yield from block
    yield _return(_ALLOW)


def _blocks(
    network: bool,
) -> Iterator[tuple[tuple[int | None, int | None], list[Step]]]:
    """Yield numbers of calls, and what decides on them; each block ends with a return.

    Calls without a condition cost nothing: the kernel remembers what passes.
    """
    for numbers in _NUMBERS.values():
        yield numbers, [_return(_REFUSE)]
    for numbers in _IGNORED.values():
        yield numbers, [_return(_IGNORE)]
    yield _CLONE3, [_return(_UNKNOWN)]
    yield (
        _CLONE,
        [
            _argument(0),
            (_HAS_BIT, 0, 1, _NAMESPACES),
            _return(_REFUSE),
            _return(_ALLOW),
        ],
    )
    for numbers in _SCHEDULING:
        yield numbers, [*_unless(0, 0, _IGNORE), _return(_ALLOW)]
    for numbers, process in (
        (_SETPRIORITY, _PRIORITY_OF_PROCESS),
        (_IOPRIO_SET, _IO_PRIORITY_OF_PROCESS),
    ):
        yield (
            numbers,
            [
                *_unless(0, process, _IGNORE),
                *_unless(1, 0, _IGNORE),
                _return(_ALLOW),
            ],
        )
    yield (
        _PRLIMIT,
        [
            _argument(0),
            (_EQUAL, 4, 0, 0),
            _argument(2),
            (_EQUAL, 0, 3, 0),
            _argument(2, high=True),
            (_EQUAL, 0, 1, 0),
            _return(_ALLOW),
            _return(_REFUSE),
        ],
    )
    yield (
        _IOCTL,
        [
            _argument(1),
            (_EQUAL, 1, 0, _TIOCSTI),
            (_EQUAL, 0, 1, _TIOCLINUX),
            _return(_REFUSE),
            _return(_ALLOW),
        ],
    )
    # Others than streams could send to any socket. Event loops need only streams.
    yield (
        _SOCKETPAIR,
        [
            *_unless(0, socket.AF_UNIX, _REFUSE),
            _argument(1),
            (_AND, 0, 0, _TYPE_OF_SOCKET),
            (_EQUAL, 1, 0, socket.SOCK_STREAM),
            _return(_REFUSE),
            _return(_ALLOW),
        ],
    )
    if network:
        # No Unix sockets: those of the installation trust whoever can open them.
        yield (
            _SOCKET,
            [
                _argument(0),
                (_EQUAL, 3, 0, socket.AF_INET),
                (_EQUAL, 2, 0, socket.AF_INET6),
                (_EQUAL, 1, 0, _AF_NETLINK),
                _return(_REFUSE),
                _return(_ALLOW),
            ],
        )
    else:
        for numbers in (_SOCKET, _CONNECT, _BIND):
            yield numbers, [_return(_REFUSE)]


def _return(action: int) -> Step:
    return _RETURN, 0, 0, action


def _argument(place: int, *, high: bool = False) -> Step:
    """Load half of an argument; both processors are little-endian."""
    return _LOAD, 0, 0, 16 + 8 * place + 4 * high


def _unless(place: int, value: int, action: int) -> list[Step]:
    """End with an action unless an argument has a value."""
    return [_argument(place), (_EQUAL, 1, 0, value), _return(action)]
