"""Define what a host asks of a zygote, over a pair of sockets.

One datagram holds one message in MessagePack. A zygote answers in the order in which it
was asked.
"""

from typing import Any

import msgspec

from inference.engine.wire.messages import VersionKey, VersionToLoad

# A version's description is the largest part; a signature may have many columns.
MAX_DATAGRAM_BYTES = 4 * 1024 * 1024


class EngineOrder(msgspec.Struct, frozen=True, omit_defaults=True):
    """How one engine process runs."""

    # Name of its socket, its log and its scratch folder.
    name: str
    device: str
    # The process that ends this one by ending itself.
    host_pid: int
    # Those that it loads when it starts.
    versions: tuple[VersionToLoad, ...] = ()
    # It keeps the list of its versions on disk; otherwise the host does.
    remembers: bool = False
    # It runs its authors' Python, in a sandbox.
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
    name: str
    pid: int


class NotForked(msgspec.Struct, frozen=True, tag="not_forked"):
    name: str
    reason: str


class Imported(msgspec.Struct, frozen=True, tag="imported"):
    """The libraries are imported; memory of an empty process, in bytes."""

    milliseconds: int
    memory_bytes: int


ZygoteReply = Forked | NotForked | Imported

_encoder = msgspec.msgpack.Encoder()
_orders = msgspec.msgpack.Decoder(EngineOrder)
_replies = msgspec.msgpack.Decoder(ZygoteReply)


def encode(message: EngineOrder | ZygoteReply) -> bytes:
    return _encoder.encode(message)


def decode_order(data: bytes) -> EngineOrder:
    return _orders.decode(data)


def decode_reply(data: bytes) -> Any:
    return _replies.decode(data)
