"""Define snapshots (models, keys, customers, engines) and the deltas between them.

A gateway begins with a whole snapshot and then follows it by deltas. Both are the same
message: a whole snapshot is a delta that builds on nothing. A reader takes a
millisecond for each part. Keys and customers stay encoded until they are looked up.
"""

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from operator import itemgetter
from typing import Any, Generic, Literal, TypeVar

import msgspec

from accounts.admission.limits import KeyLimits, KeyProblem, Limits
from inference.engine.signatures.signature import Signature
from registry.routing import Variant

Name = TypeVar("Name", bytes, int)
Entry = TypeVar("Entry")
Item = TypeVar("Item")

# Most bytes of entries in one part of a delta; a larger entry has a part of its own.
PART_BYTES = 32 * 1024
# Most bytes of entries in one block of a table: a look-up decodes a whole block.
_BLOCK_BYTES = 1024


class Ending(msgspec.Struct, frozen=True, gc=False):
    """The announced end of a model or a version, in seconds since the epoch."""

    deprecated_at: float
    ends_at: float
    # A sentence for callers.
    use_instead: str = ""


class CallableVersion(msgspec.Struct, frozen=True):
    """A version that an engine has loaded or is going to load."""

    version: int
    signature: Signature
    aliases: tuple[str, ...] = ()
    # Instances as in `instances` of a request; shown in docs.
    example: Any = None
    # Digest of the artifact: MLflow may give the same number to another version.
    artifact: str = ""
    # Whether the same input always gets the same answer.
    deterministic: bool = True
    # Names (see Snapshot.engines) of the engines that have it.
    engines: tuple[str, ...] = ()
    # Whether a call may be sent again if the engine died while it worked on it.
    repeatable: bool = True
    # Its processes died, and no engine has it until a person acts.
    quarantined: bool = False
    # For those who call it by its number or an alias.
    ending: Ending | None = None


class CachePolicy(msgspec.Struct, frozen=True, gc=False):
    """How long predictions are kept, and for whom."""

    ttl_s: int
    scope: Literal["customer", "everyone"] = "customer"


class FixedAnswer(msgspec.Struct, frozen=True):
    """The prediction for every instance when no version can answer."""

    prediction: Any


class Fallback(msgspec.Struct, frozen=True):
    """What answers if a version cannot: another version, or else a fixed answer."""

    # Codes of the errors that it replaces.
    on: tuple[str, ...]
    version: int | None = None
    answer: FixedAnswer | None = None


class Shadow(msgspec.Struct, frozen=True, gc=False):
    """A version that gets copies of the default's calls and answers nobody."""

    version: int
    # Share of the default's calls.
    percent: int
    # Numbers that differ by no more than this part are the same answer.
    tolerance: float = 0.01
    keeps_examples: bool = False


class Sticky(msgspec.Struct, frozen=True):
    """By what callers of a route keep their version, as evidence of rollouts."""

    by: Literal["key", "header"]
    # Secret, and new in each stage, so that a hash is as good as a dealt turn.
    salt: str


class CallableModel(msgspec.Struct, frozen=True):
    """One model: its callable versions and the serving variants of its route."""

    name: str
    versions: tuple[CallableVersion, ...]
    # Empty while no default is served yet: the model is known but unavailable.
    variants: tuple[Variant, ...] = ()
    # It has a route, so it is a fault if its default is not served.
    routed: bool = False
    public: bool = False
    low_confidence_below: float | None = None
    description: str = ""
    cache: CachePolicy | None = None
    fallback: Fallback | None = None
    # Numbers and aliases of versions that cannot answer until somebody acts.
    broken: tuple[str, ...] = ()
    # Why nothing is served and waiting does not help; empty: it may help.
    stuck: Literal["", "broken", "quarantined"] = ""
    # For all calls.
    ending: Ending | None = None
    shadow: Shadow | None = None
    # None: only who sends X-Sticky-Key keeps its version, and is no evidence.
    sticky: Sticky | None = None

    @property
    def salt(self) -> str:
        """Return what sticky callers are dealt by."""
        return self.name if self.sticky is None else self.sticky.salt

    def ending_of(self, version: CallableVersion) -> Ending | None:
        """Return what ends first for those who name the version."""
        ending = version.ending
        if ending is None or (self.ending and self.ending.ends_at < ending.ends_at):
            return self.ending
        return ending


class AccessKey(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """An API key that is valid until it expires."""

    key_id: str
    # SHA-256 of the whole token.
    digest: bytes
    customer_id: int
    scopes: tuple[str, ...]
    # Empty: every model.
    models: tuple[str, ...] = ()
    # Seconds since the epoch.
    expires_at: float | None = None
    # Limits below its customer's; None: only the customer's count.
    limits: KeyLimits | None = None
    # It may be used from these only; empty: from anywhere.
    networks: tuple[str, ...] = ()
    # A key of test mode: everything is checked, nothing is charged.
    test: bool = False
    # The key whose rates and quotas it counts against; empty: its own.
    quota_key_id: str = ""


class EndedKey(msgspec.Struct, frozen=True, gc=False):
    """An API key that is refused, and why."""

    digest: bytes
    reason: KeyProblem


class AccessCustomer(msgspec.Struct, frozen=True, gc=False):
    customer_id: int
    limits: Limits


class Block(msgspec.Struct, Generic[Name], frozen=True, gc=False, array_like=True):
    """Consecutive entries of a table, encoded as a map by name; `first` is the least.

    All names in the next block are greater.
    """

    first: Name
    entries: msgspec.Raw


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
    # The newest ended keys: their callers are told why they are refused.
    ended_keys: tuple[EndedKey, ...] = ()
    site_default_model: str | None = None


class Delta(msgspec.Struct, frozen=True, omit_defaults=True):
    """Entries added, changed or removed between the sequences `base` and `sequence`.

    A delta may have several parts; the reader is at `sequence` after the last one. A
    delta that removes a customer names its keys in `gone_keys`, too.
    """

    sequence: int
    # 0: it builds on nothing; all its parts together are a whole snapshot.
    base: int = 0
    part: int = 0
    last: bool = True
    published_at: float = 0.0
    # None and UNSET mean unchanged. A changed entry is always sent as a whole.
    engines: tuple[EngineAddress, ...] | None = None
    site_default_model: str | msgspec.UnsetType | None = msgspec.UNSET
    # Only in a whole snapshot, sorted: limits by customer, and keys by digest.
    customer_blocks: tuple[Block[int], ...] = ()
    key_blocks: tuple[Block[bytes], ...] = ()
    customers: tuple[AccessCustomer, ...] = ()
    gone_customers: tuple[int, ...] = ()
    keys: tuple[AccessKey, ...] = ()
    # By their digests.
    gone_keys: tuple[bytes, ...] = ()
    ended_keys: tuple[EndedKey, ...] = ()
    models: tuple[CallableModel, ...] = ()
    gone_models: tuple[str, ...] = ()


class Table(Generic[Name, Entry]):
    """Entries by name: encoded blocks of a whole snapshot, and changes since then.

    Any number of entries makes few Python objects: they are taken over and freed
    quickly, and the garbage collector does not visit them.
    """

    __slots__ = ("_blocks", "_changed", "_decode", "_decode_block", "_firsts")

    def __init__(self, names: type[Name], entries: type[Entry]) -> None:
        self._firsts: list[Name] = []
        self._blocks: list[msgspec.Raw] = []
        # None: the entry was removed.
        self._changed: dict[Name, Entry | None] = {}
        self._decode = msgspec.msgpack.Decoder(entries).decode
        in_block = dict[names, msgspec.Raw]  # type: ignore[valid-type]
        self._decode_block = msgspec.msgpack.Decoder(in_block).decode

    def extend(self, blocks: Iterable[Block[Name]]) -> None:
        """Add entries whose names are greater than all that were added before."""
        for block in blocks:
            self._firsts.append(block.first)
            self._blocks.append(block.entries)

    def change(self, name: Name, entry: Entry | None) -> None:
        """Replace or add an entry; None removes it."""
        self._changed[name] = entry

    def get(self, name: Name) -> Entry | None:
        if name in self._changed:
            return self._changed[name]
        number = bisect_right(self._firsts, name) - 1
        if number < 0:
            return None
        encoded = self._decode_block(self._blocks[number]).get(name)
        return None if encoded is None else self._decode(encoded)

    def items(self) -> Iterator[tuple[Name, Entry]]:
        """Decode and yield all entries."""
        for block in self._blocks:
            for name, encoded in self._decode_block(block).items():
                if name not in self._changed:
                    yield name, self._decode(encoded)
        for name, entry in self._changed.items():
            if entry is not None:
                yield name, entry


class Contents:
    """The entries of a snapshot, by the keys of their look-ups."""

    __slots__ = (
        "customers",
        "ended_keys",
        "engines",
        "keys",
        "models",
        "published_at",
        "sequence",
        "site_default_model",
    )

    def __init__(self) -> None:
        self.sequence = 0
        self.published_at = 0.0
        self.models: dict[str, CallableModel] = {}
        self.keys = Table(bytes, AccessKey)
        self.ended_keys: dict[bytes, KeyProblem] = {}
        self.customers = Table(int, Limits)
        self.engines: dict[str, str] = {}
        self.site_default_model: str | None = None

    def take(self, delta: Delta) -> None:
        """Take over one part of a delta; customers come before their keys."""
        if delta.engines is not None:
            self.engines = {engine.name: engine.address for engine in delta.engines}
        if delta.site_default_model is not msgspec.UNSET:
            self.site_default_model = delta.site_default_model
        self.customers.extend(delta.customer_blocks)
        self.keys.extend(delta.key_blocks)
        for customer in delta.customers:
            self.customers.change(customer.customer_id, customer.limits)
        for key in delta.keys:
            self.keys.change(key.digest, key)
            self.ended_keys.pop(key.digest, None)
        for digest in delta.gone_keys:
            self.keys.change(digest, None)
        for ended in delta.ended_keys:
            self.ended_keys[ended.digest] = ended.reason
        for customer_id in delta.gone_customers:
            self.customers.change(customer_id, None)
        for model in delta.models:
            self.models[model.name] = model
        for name in delta.gone_models:
            self.models.pop(name, None)
        if delta.last:
            self.sequence = delta.sequence
            self.published_at = delta.published_at

    def as_snapshot(self) -> Snapshot:
        """Return the contents as one Snapshot."""
        return Snapshot(
            sequence=self.sequence,
            published_at=self.published_at,
            models=tuple(self.models.values()),
            keys=tuple(key for _, key in self.keys.items()),
            customers=tuple(
                AccessCustomer(customer_id=customer_id, limits=limits)
                for customer_id, limits in self.customers.items()
            ),
            engines=tuple(
                EngineAddress(name=name, address=address)
                for name, address in self.engines.items()
            ),
            ended_keys=tuple(
                EndedKey(digest=digest, reason=reason)
                for digest, reason in self.ended_keys.items()
            ),
            site_default_model=self.site_default_model,
        )


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Delta)
# Order in which parts carry entries: an entry comes after those that it names.
_ENTRIES = (
    "customer_blocks",
    "key_blocks",
    "customers",
    "keys",
    "gone_keys",
    "ended_keys",
    "gone_customers",
    "models",
    "gone_models",
)


def whole(snapshot: Snapshot) -> Delta:
    """Return a snapshot as a delta that builds on nothing."""
    return Delta(
        sequence=snapshot.sequence,
        published_at=snapshot.published_at,
        engines=snapshot.engines,
        site_default_model=snapshot.site_default_model,
        customer_blocks=_blocks(
            (customer.customer_id, customer.limits) for customer in snapshot.customers
        ),
        key_blocks=_blocks((key.digest, key) for key in snapshot.keys),
        ended_keys=snapshot.ended_keys,
        models=snapshot.models,
    )


def _blocks(entries: Iterable[tuple[Name, Any]]) -> tuple[Block[Name], ...]:
    encoded = (
        (name, _encoder.encode(entry))
        for name, entry in sorted(entries, key=itemgetter(0))
    )
    return tuple(
        Block(
            first=portion[0][0],
            entries=msgspec.Raw(
                _encoder.encode({name: msgspec.Raw(entry) for name, entry in portion})
            ),
        )
        for portion in _portions(encoded, _BLOCK_BYTES)
    )


def encode_parts(
    delta: Delta, *, first: int = 0, complete: bool = True
) -> Iterator[bytes]:
    """Encode a delta as messages that a reader can take over in one short turn each.

    Parts are numbered from `first` on. Unless `complete`, the caller adds more parts.
    """
    encoded = (
        (name, _encoder.encode(entry))
        for name in _ENTRIES
        for entry in getattr(delta, name)
    )
    portions = list(_portions(encoded, PART_BYTES)) or [[]]
    for number, portion in enumerate(portions):
        message: dict[str, Any] = {
            "sequence": delta.sequence,
            "base": delta.base,
            "part": first + number,
            "last": complete and number == len(portions) - 1,
            "published_at": delta.published_at,
        }
        if number == 0:
            message["engines"] = delta.engines
            if delta.site_default_model is not msgspec.UNSET:
                message["site_default_model"] = delta.site_default_model
        for name, entry in portion:
            message.setdefault(name, []).append(msgspec.Raw(entry))
        yield _encoder.encode(message)


def _portions(
    items: Iterable[tuple[Item, bytes]], most_bytes: int
) -> Iterator[list[tuple[Item, bytes]]]:
    """Divide encoded items into portions of `most_bytes`; a larger item stays alone."""
    portion: list[tuple[Item, bytes]] = []
    size = 0
    for item in items:
        length = len(item[1])
        if portion and size + length > most_bytes:
            yield portion
            portion, size = [], 0
        portion.append(item)
        size += length
    if portion:
        yield portion


def decode_part(message: bytes) -> Delta:
    """Decode one part of a delta; raise msgspec.DecodeError."""
    return _decoder.decode(message)
