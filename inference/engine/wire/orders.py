"""Define what a host asks of a zygote, over a pair of sockets.

One datagram holds one answer in MessagePack, or the descriptor of a file in memory with
an order: a signature may have many columns, and a group many versions, but the kernel's
settings bound a datagram. A zygote answers in the order in which it was asked.
"""

import os
import socket
from typing import Any

import msgspec

from inference.engine.wire.messages import VersionKey, VersionToLoad


class EngineOrder(msgspec.Struct, frozen=True, omit_defaults=True):
    """How one engine process runs."""

    # Name of its socket, its log and its scratch folder.
    name: str
    device: str
    # The process that ends this one by ending itself.
    host_pid: int
    # Those that it loads when it starts.
    versions: tuple[VersionToLoad, ...] = ()
    # It runs its authors' Python, in a sandbox, and its host keeps the list of its
    # versions; others keep that list themselves, on disk.
    walled: bool = False
    network: bool = False
    # Versions that it must not load: they ended this process before.
    refused: tuple[VersionKey, ...] = ()
    # Files and folders that it uses. What models print goes to `output`.
    output: str = ""
    # Our own log goes to the zygote's standard output, not to `output`.
    logs_to_stdout: bool = False
    notes: str = ""
    scratch: str = ""
    # Further folders that it may read, e.g. its environment.
    readable: tuple[str, ...] = ()


class Forked(msgspec.Struct, frozen=True, tag="forked"):
    """A process runs; it began with `memory_bytes` of libraries."""

    name: str
    pid: int
    memory_bytes: int = 0


class NotForked(msgspec.Struct, frozen=True, tag="not_forked"):
    name: str
    reason: str


class Imported(msgspec.Struct, frozen=True, tag="imported"):
    """All libraries are imported, and take `memory_bytes`."""

    milliseconds: int
    memory_bytes: int


ZygoteReply = Forked | NotForked | Imported

_encoder = msgspec.msgpack.Encoder()
_orders = msgspec.msgpack.Decoder(EngineOrder)
_replies = msgspec.msgpack.Decoder(ZygoteReply)


def send_order(link: socket.socket, order: EngineOrder) -> None:
    """Send an order. Raises OSError."""
    with os.fdopen(os.memfd_create("order"), "wb") as file:
        file.write(_encoder.encode(order))
        file.flush()
        socket.send_fds(link, [b"o"], [file.fileno()])


def receive_order(link: socket.socket) -> EngineOrder | None:
    """Wait for the next order; None: the host is gone. Raises OSError."""
    data, files, _, _ = socket.recv_fds(link, 1, 1)
    if not data:
        return None
    with os.fdopen(files[0], "rb") as file:
        # The host's position in the file is ours, too.
        file.seek(0)
        return _orders.decode(file.read())


def encode(reply: ZygoteReply) -> bytes:
    return _encoder.encode(reply)


def decode_reply(data: bytes) -> Any:
    return _replies.decode(data)
