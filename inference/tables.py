"""A snapshot made ready for look-ups, kept warm from one change to the next. Pure.

Only what a call needs is built, when the first call needs it, and only what a change
names is touched: with 100,000 keys and 1,000 models a change must not stop the event
loop.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

from accounts.admission.admission import Admission
from accounts.admission.admissions import Admissions
from accounts.admission.back_off import BackOff, BackOffs
from accounts.admission.key_admission import KeyAdmission
from accounts.admission.limits import KeyProblem
from accounts.admission.networks import Networks, SeenNetworks
from accounts.admission.refusal import Refusal
from accounts.admission.shared_counts import CLOSED_UNTIL
from inference.codecs.answers import AnswerEncoder
from inference.codecs.decoding import InstanceDecoder
from inference.engine.signatures.signature import Signature
from inference.engine.wire.messages import VersionKey
from inference.snapshot import (
    AccessKey,
    CachePolicy,
    CallableModel,
    CallableVersion,
    Contents,
    Delta,
    Snapshot,
    whole,
)
from registry.routing import Variant, Wheel, choose_pinned

Made = TypeVar("Made")

_MAX_TOKENS = 10_000

# Variant name of a version that is called by its number, outside the route.
PUBLISHED = "published"
# And of what stands in for a version that cannot answer.
FALLBACK = "fallback"


class KeyEntry:
    """A key in use, with its customer's counts."""

    __slots__ = (
        "admission",
        "back_off",
        "key",
        "models",
        "networks",
        "scopes",
        "seen_networks",
        "token",
    )

    def __init__(
        self,
        key: AccessKey,
        admission: Admission | KeyAdmission,
        back_off: BackOff | None = None,
    ) -> None:
        self.key = key
        self.admission = admission
        self.back_off = back_off
        self.scopes = frozenset(key.scopes)
        self.models = frozenset(key.models) if key.models else None
        self.networks = Networks(key.networks) if key.networks else None
        self.seen_networks = SeenNetworks()
        # The one that is remembered.
        self.token: bytes | None = None

    def enter(self, now: float) -> Refusal | None:
        """Count one call; unless it is refused, the caller must leave the admission."""
        back_off = self.back_off
        if back_off is None:
            return self.admission.enter(now)
        refusal = None
        if back_off.cells[CLOSED_UNTIL] > now:
            refusal = back_off.refusal(now)
        if refusal is None:
            refusal = self.admission.enter(now)
            if refusal is not None:
                back_off.note(refusal, now)
        return refusal


class Target:
    """One callable version of a model and how it names itself in answers."""

    __slots__ = (
        "_compiled",
        "_low",
        "_signature",
        "_tools",
        "cache",
        "cache_key",
        "key",
        "model_json",
        "variant",
        "version",
        "version_header",
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
        self.version_header = (b"x-model-version", self.version.encode())
        self.variant = variant
        self.model_json = _model_json(model.name, version, variant)
        self.cache: CachePolicy | None = model.cache if version.deterministic else None
        # Names what computes: another artifact or another prediction.
        self.cache_key = (model.name, version.version, version.artifact)
        self._signature = version.signature
        self._low = model.low_confidence_below
        self._tools: tuple[InstanceDecoder, AnswerEncoder] | None = None
        self._compiled: dict[Callable[[Target], Any], Any] = {}
        if (
            before is not None
            and before._signature == self._signature
            and before._low == self._low
        ):
            self._tools = before._tools
            self._compiled = before._compiled

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

    def compiled(self, make: "Callable[[Target], Made]") -> Made:
        """Give what `make` made of this target at the first call.

        It may use the key, the version and the signature, which stay.
        """
        made: Made | None = self._compiled.get(make)
        if made is None:
            made = self._compiled[make] = make(self)
        return made


class ModelEntry:
    """A model with its route and its callable versions."""

    __slots__ = ("_by_name", "_by_number", "_fallbacks", "_wheel", "model")

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
            alias: self._by_number[version.version]
            for version in model.versions
            for alias in version.aliases
        }
        # After the aliases, because one of them may be another version's number.
        self._by_name |= {str(n): target for n, target in self._by_number.items()}
        # By reason, made when first needed.
        self._fallbacks: dict[str, Target] = {}
        if before is not None and before.model.variants == model.variants:
            # The wheel turns on where it was: shares stay exact.
            self._wheel: Wheel | None = before._wheel
        else:
            self._wheel = Wheel(model.variants) if model.variants else None

    def named(self, version: str) -> Target | None:
        """Find a version by its number or an alias."""
        return self._by_name.get(version)

    def fallback(self, reason: str) -> Target | None:
        """Give the version that stands in after an error with the code `reason`."""
        named = self.model.fallback
        if named is None or named.version is None:
            return None
        target = self._fallbacks.get(reason)
        version = next(
            (v for v in self.model.versions if v.version == named.version), None
        )
        if target is None and version is not None:
            before = self._by_number[version.version]
            target = Target(self.model, version, variant=FALLBACK, before=before)
            target.model_json = fallback_json(
                self.model.name, target.version, reason=reason
            )
            self._fallbacks[reason] = target
        return target

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


class MissedDelta(Exception):
    """A delta builds on what these tables do not hold: read the whole snapshot."""


class Tables:
    """Look-ups for the plan. `take` may be called between any two calls."""

    def __init__(
        self,
        snapshot: Snapshot | None = None,
        *,
        make_admission: Callable[..., Admission] = Admission,
        back_offs: BackOffs | None = None,
    ) -> None:
        self.admissions = Admissions(make_admission)
        self.back_offs = back_offs
        self.models: dict[str, ModelEntry] = {}
        self._contents = Contents()
        # A whole snapshot of which some parts have come, with its models.
        self._coming: tuple[Contents, dict[str, ModelEntry]] | None = None
        self._next_part = 0
        self._entries: dict[bytes, KeyEntry] = {}
        # Entries before the last whole snapshot: those of keys that stayed are kept.
        self._former: dict[bytes, KeyEntry] = {}
        # Tokens that were right: to check one again costs more than everything else
        # that is done with a key.
        self._tokens: dict[bytes, KeyEntry] = {}
        if snapshot is not None:
            self.replace(snapshot)

    @property
    def sequence(self) -> int:
        """Number of the last change that was taken over; 0 before any snapshot."""
        return self._contents.sequence

    @property
    def published_at(self) -> float:
        return self._contents.published_at

    @property
    def site_default_model(self) -> str | None:
        return self._contents.site_default_model

    @property
    def engines(self) -> dict[str, str]:
        """Return the engines' addresses by their names."""
        return self._contents.engines

    def models_by_name(self) -> list[CallableModel]:
        return [self.models[name].model for name in sorted(self.models)]

    def as_snapshot(self) -> Snapshot:
        """Return all that was taken over as one value."""
        return self._contents.as_snapshot()

    def replace(self, snapshot: Snapshot) -> None:
        """Take over a whole snapshot and keep all that has not changed."""
        self.take(whole(snapshot))

    def take(self, delta: Delta) -> None:
        """Take over one part of a delta; raise MissedDelta if others are missing.

        The parts of a whole snapshot are laid aside until the last has come. Those of
        other deltas hold at once: a revoked key does not wait for the rest.
        """
        is_whole = delta.base == 0
        if is_whole and delta.part == 0:
            self._coming, self._next_part = (Contents(), {}), 0
        elif not is_whole and delta.part == 0:
            self._coming, self._next_part = None, 0
        if (
            delta.part != self._next_part
            or is_whole != (self._coming is not None)
            or delta.base not in (0, self._contents.sequence)
        ):
            self._coming, self._next_part = None, -1
            raise MissedDelta(f"{delta.sequence} builds on {delta.base}")
        for customer in delta.customers:
            self.admissions.replace_limits(customer.customer_id, customer.limits)
        contents, models = self._coming or (self._contents, self.models)
        contents.take(delta)
        for model in delta.models:
            entry = self._model(model, self.models.get(model.name))
            models[model.name] = entry
            # An equal one is not held twice.
            contents.models[model.name] = entry.model
        for name in delta.gone_models:
            models.pop(name, None)
        if is_whole:
            if delta.last:
                self._contents, self.models = contents, models
                self._entries, self._former = {}, self._entries
                self._tokens, self._coming = {}, None
        else:
            for key in delta.keys:
                self._forget(key.digest)
            for digest in delta.gone_keys:
                self._forget(digest)
        self._next_part = -1 if delta.last else delta.part + 1

    def _forget(self, digest: bytes) -> None:
        """Forget what was made of a key that changed."""
        self._former.pop(digest, None)
        entry = self._entries.pop(digest, None)
        if entry is not None and entry.token is not None:
            self._tokens.pop(entry.token, None)

    def known_token(self, token: bytes) -> KeyEntry | None:
        """Find the key of a token that is remembered."""
        return self._tokens.get(token)

    def remember_token(self, token: bytes, entry: KeyEntry) -> None:
        """Keep a token that was right, until its key changes."""
        if len(self._tokens) >= _MAX_TOKENS:
            self._tokens.clear()
        # A key has one token: its digest is that of the token.
        entry.token = token
        self._tokens[token] = entry

    def find_key(self, digest: bytes) -> KeyEntry | None:
        """Find a key by the SHA-256 of its token.

        A dictionary of digests needs no constant-time compare: whoever could steer a
        digest towards a stored one has broken SHA-256.
        """
        entry = self._entries.get(digest)
        if entry is None:
            key = self._contents.keys.get(digest)
            limits = (
                None if key is None else self._contents.customers.get(key.customer_id)
            )
            if key is None or limits is None:
                return None
            entry = self._former.pop(digest, None)
            if entry is not None and entry.key == key:
                self.admissions.replace_limits(key.customer_id, limits)
                self._entries[digest] = entry
                return entry
            admission = self.admissions.find(
                customer_id=key.customer_id,
                limits=limits,
                key_id=key.key_id,
                quota_key_id=key.quota_key_id,
                key_limits=key.limits,
            )
            back_off = None
            if self.back_offs is not None:
                back_off = self.back_offs.of_key(key.key_id, admission, key.limits)
            entry = KeyEntry(key, admission, back_off)
            self._entries[digest] = entry
        return entry

    def why_ended(self, digest: bytes) -> KeyProblem | None:
        """Return why the key of this token is refused; None: it is not known."""
        return self._contents.ended_keys.get(digest)

    def _model(self, model: CallableModel, before: ModelEntry | None) -> ModelEntry:
        if before is not None and before.model == model:
            return before
        return ModelEntry(model, before)


class _FallbackUsed(msgspec.Struct):
    name: str
    # None: no version answered.
    version: str | None
    fallback_reason: str
    variant: str = FALLBACK
    fallback: bool = True


def fallback_json(name: str, version: str | None, *, reason: str) -> msgspec.Raw:
    """Write the `model` of an answer that is not from the version in charge."""
    return msgspec.Raw(msgspec.json.encode(_FallbackUsed(name, version, reason)))


class _ModelUsed(msgspec.Struct, omit_defaults=True):
    name: str
    version: str
    variant: str
    alias: str | None = None


def _model_json(name: str, version: CallableVersion, variant: str) -> msgspec.Raw:
    alias = version.aliases[0] if version.aliases else None
    used = _ModelUsed(name, str(version.version), variant, alias)
    return msgspec.Raw(msgspec.json.encode(used))
