"""What may be called, by whom, and how: the one file that gateways live from.

The controller writes it, gateways read it; neither needs the other to be up. The file
is a magic number, the SHA-256 of the rest, and a Snapshot in MessagePack, replaced
atomically by rename.
"""

import hashlib
import os
from pathlib import Path
from typing import Any, Literal

import msgspec

from accounts.limits import KeyLimits, Limits
from inference.engine.signature import Signature
from registry.routing import Variant

_MAGIC = b"MYSNAP01"


class CallableVersion(msgspec.Struct, frozen=True):
    """A version that some engine has loaded, or that waits for it."""

    version: int
    signature: Signature
    aliases: tuple[str, ...] = ()
    # Instances as `instances` of a request holds them; shown in docs.
    example: Any = None
    # Digest of the artifact: a number that is given again is another version.
    artifact: str = ""
    # Does the same input always get the same answer?
    deterministic: bool = True


class CachePolicy(msgspec.Struct, frozen=True, gc=False):
    """How long predictions are kept, and for whom."""

    ttl_s: int
    scope: Literal["customer", "everyone"] = "customer"


class FixedAnswer(msgspec.Struct, frozen=True):
    """The prediction that every instance gets when nothing can answer."""

    prediction: Any


class Fallback(msgspec.Struct, frozen=True):
    """What stands in for a version that cannot answer; the version goes first."""

    # Codes of the errors that it stands in for.
    on: tuple[str, ...]
    version: int | None = None
    answer: FixedAnswer | None = None


class CallableModel(msgspec.Struct, frozen=True):
    """One model: its callable versions and the serving variants of its route."""

    name: str
    versions: tuple[CallableVersion, ...]
    # Empty while no default is served yet: the model is known but unavailable.
    variants: tuple[Variant, ...] = ()
    # Has it a route, so that not to serve its default is a fault?
    routed: bool = False
    # Names of the engines (Snapshot.engines) that have its versions.
    engines: tuple[str, ...] = ()
    public: bool = False
    low_confidence_below: float | None = None
    description: str = ""
    cache: CachePolicy | None = None
    fallback: Fallback | None = None


class AccessKey(msgspec.Struct, frozen=True, gc=False):
    """An API key that is valid but for its expiry."""

    key_id: str
    # SHA-256 of the whole token.
    digest: bytes
    customer_id: int
    scopes: tuple[str, ...]
    # Empty: every model.
    models: tuple[str, ...] = ()
    # Seconds since the epoch.
    expires_at: float | None = None
    # Below those of its customer; None: it may use all of them.
    limits: KeyLimits | None = None
    # It may be used from these only; empty: from anywhere.
    networks: tuple[str, ...] = ()
    # Of test mode: all is checked, nothing is charged.
    test: bool = False
    # The key under which its own rates and quotas are counted; empty: itself.
    quota_key_id: str = ""


class AccessCustomer(msgspec.Struct, frozen=True, gc=False):
    customer_id: int
    limits: Limits


class EngineAddress(msgspec.Struct, frozen=True):
    name: str
    # Path of its Unix socket.
    address: str


class Snapshot(msgspec.Struct, frozen=True):
    """Everything a gateway knows. `sequence` grows with every published change."""

    sequence: int
    published_at: float
    models: tuple[CallableModel, ...] = ()
    keys: tuple[AccessKey, ...] = ()
    customers: tuple[AccessCustomer, ...] = ()
    engines: tuple[EngineAddress, ...] = ()
    site_default_model: str | None = None


class SnapshotCorrupt(ValueError):
    """The file is not a whole snapshot."""


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Snapshot)


def encode(snapshot: Snapshot) -> bytes:
    body = _encoder.encode(snapshot)
    return _MAGIC + hashlib.sha256(body).digest() + body


def decode(data: bytes) -> Snapshot:
    """Raise SnapshotCorrupt unless `data` is exactly one whole snapshot."""
    digest, body = data[8:40], data[40:]
    if data[:8] != _MAGIC or hashlib.sha256(body).digest() != digest:
        raise SnapshotCorrupt("magic number or checksum does not match")
    try:
        return _decoder.decode(body)
    except msgspec.DecodeError as error:
        raise SnapshotCorrupt(str(error)) from error


def write(path: Path, snapshot: Snapshot) -> None:
    """Replace the file at `path` so that readers see the old or the new, whole."""
    partial = path.with_suffix(f".{os.getpid()}.partial")
    with partial.open("wb") as file:
        file.write(encode(snapshot))
        file.flush()
        os.fsync(file.fileno())
    partial.chmod(0o600)
    partial.replace(path)


def read(path: Path) -> Snapshot:
    return decode(path.read_bytes())
