"""A snapshot made ready for look-ups, kept warm from one snapshot to the next. Pure.

Only what a call needs is built, when the first call needs it: with 100,000 keys and
1,000 models a new snapshot must not stop the event loop.
"""

import msgspec

from accounts.admission import Admission
from accounts.limits import LeaseReturn, Limits
from inference.answers import AnswerEncoder
from inference.decoding import InstanceDecoder
from inference.engine.messages import VersionKey
from inference.engine.signature import Signature
from inference.snapshot import AccessKey, CallableModel, CallableVersion, Snapshot
from registry.routing import Variant, Wheel, choose_pinned

# Variant name of a version that is called by its number, outside the route.
PUBLISHED = "published"


class KeyEntry:
    """A key in use, with its customer's counts."""

    __slots__ = ("admission", "key", "models", "scopes")

    def __init__(self, key: AccessKey, admission: Admission) -> None:
        self.key = key
        self.admission = admission
        self.scopes = frozenset(key.scopes)
        self.models = frozenset(key.models) if key.models else None


class Target:
    """One callable version of a model and how it names itself in answers."""

    __slots__ = (
        "_low",
        "_signature",
        "_tools",
        "key",
        "model_json",
        "variant",
        "version",
    )

    def __init__(
        self,
        model: CallableModel,
        version: CallableVersion,
        *,
        variant: str,
        before: "Target | None" = None,
    ) -> None:
        self.key = VersionKey(model.name, version.version)
        self.version = str(version.version)
        self.variant = variant
        self.model_json = _model_json(model.name, version, variant)
        self._signature = version.signature
        self._low = model.low_confidence_below
        self._tools: tuple[InstanceDecoder, AnswerEncoder] | None = None
        if (
            before is not None
            and before._signature == self._signature
            and before._low == self._low
        ):
            self._tools = before._tools

    @property
    def signature(self) -> Signature:
        return self._signature

    def tools(self) -> tuple[InstanceDecoder, AnswerEncoder]:
        """Give decoder and encoder, compiled at the first call."""
        if self._tools is None:
            self._tools = (
                InstanceDecoder(self._signature),
                AnswerEncoder(self._signature, low_confidence_below=self._low),
            )
        return self._tools


class ModelEntry:
    """A model with its route and its callable versions."""

    __slots__ = ("_by_name", "_by_number", "_wheel", "model")

    def __init__(self, model: CallableModel, before: "ModelEntry | None") -> None:
        self.model = model
        roles = {variant.version: variant.role for variant in model.variants}
        previous = before._by_number if before is not None else {}
        self._by_number: dict[int, Target] = {
            version.version: Target(
                model,
                version,
                variant=roles.get(version.version, PUBLISHED),
                before=previous.get(version.version),
            )
            for version in model.versions
        }
        self._by_name = {
            name: self._by_number[version.version]
            for version in model.versions
            for name in (*version.aliases, str(version.version))
        }
        if before is not None and before.model.variants == model.variants:
            # The wheel turns on where it was: shares stay exact.
            self._wheel: Wheel | None = before._wheel
        else:
            self._wheel = Wheel(model.variants) if model.variants else None

    def named(self, version: str) -> Target | None:
        """Find a version by its number or an alias."""
        return self._by_name.get(version)

    def next(self) -> Target | None:
        """Choose for an unpinned call; None while no default is served."""
        if self._wheel is None:
            return None
        return self._target(self._wheel.next())

    def pinned(self, sticky_key: str) -> Target | None:
        """Choose the same variant for the same key."""
        model = self.model
        if not model.variants:
            return None
        return self._target(
            choose_pinned(model.variants, salt=model.name, sticky_key=sticky_key)
        )

    def _target(self, variant: Variant) -> Target:
        return self._by_number[variant.version]


class Tables:
    """Look-ups for the plan. `replace` may be called between any two calls."""

    def __init__(self, snapshot: Snapshot | None = None) -> None:
        self.snapshot = Snapshot(sequence=0, published_at=0.0)
        self.models: dict[str, ModelEntry] = {}
        self.engines: dict[str, str] = {}
        self._keys: dict[bytes, AccessKey] = {}
        self._limits: dict[int, Limits] = {}
        self._entries: dict[bytes, KeyEntry] = {}
        # Kept when a customer is gone from a snapshot: units in hand must be returned.
        self._admissions: dict[int, Admission] = {}
        if snapshot is not None:
            self.replace(snapshot)

    def replace(self, snapshot: Snapshot) -> None:
        """Take over a new snapshot and keep all that has not changed."""
        keys = {key.digest: key for key in snapshot.keys}
        limits = {entry.customer_id: entry.limits for entry in snapshot.customers}
        for customer_id, admission in self._admissions.items():
            now = limits.get(customer_id)
            if now is not None and now != admission.limits:
                admission.replace_limits(now)
        self.models = {
            model.name: self._model(model, self.models.get(model.name))
            for model in snapshot.models
        }
        self.engines = {engine.name: engine.address for engine in snapshot.engines}
        self._keys, self._limits = keys, limits
        self._entries = {
            digest: entry
            for digest, entry in self._entries.items()
            if keys.get(digest) == entry.key and entry.key.customer_id in limits
        }
        self.snapshot = snapshot

    def find_key(self, digest: bytes) -> KeyEntry | None:
        """Find a key by the SHA-256 of its token.

        A dictionary of digests needs no constant-time compare: whoever could steer a
        digest towards a stored one has broken SHA-256.
        """
        entry = self._entries.get(digest)
        if entry is None:
            key = self._keys.get(digest)
            limits = None if key is None else self._limits.get(key.customer_id)
            if key is None or limits is None:
                return None
            entry = KeyEntry(key, self._admission(key.customer_id, limits))
            self._entries[digest] = entry
        return entry

    def refund(self, customer_id: int, *, rows: int, now: float) -> None:
        """Undo a spend of a customer who may have left since."""
        admission = self._admissions.get(customer_id)
        if admission is not None:
            admission.refund(rows, now)

    def held(self) -> list[LeaseReturn]:
        """List all leased and unspent units, to return them on shutdown."""
        return [
            units
            for admission in self._admissions.values()
            for units in admission.held()
        ]

    def _admission(self, customer_id: int, limits: Limits) -> Admission:
        admission = self._admissions.get(customer_id)
        if admission is None:
            admission = Admission(customer_id, limits)
            self._admissions[customer_id] = admission
        elif admission.limits != limits:
            admission.replace_limits(limits)
        return admission

    def _model(self, model: CallableModel, before: ModelEntry | None) -> ModelEntry:
        if before is not None and before.model == model:
            return before
        return ModelEntry(model, before)


class _ModelUsed(msgspec.Struct, omit_defaults=True):
    name: str
    version: str
    variant: str
    alias: str | None = None


def _model_json(name: str, version: CallableVersion, variant: str) -> msgspec.Raw:
    alias = version.aliases[0] if version.aliases else None
    used = _ModelUsed(name, str(version.version), variant, alias)
    return msgspec.Raw(msgspec.json.encode(used))
