"""Choose the version of a model that answers, and compile what its calls need."""

from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

from inference.codecs.answers import AnswerEncoder
from inference.codecs.decoding import InstanceDecoder
from inference.engine.signatures.signature import Signature
from inference.engine.wire.messages import VersionKey
from inference.snapshot.contents import CachePolicy, CallableModel, CallableVersion
from registry.routing import Variant, Wheel, choose_pinned

Made = TypeVar("Made")
# Variant of a version that is called by its number, outside the route.
PUBLISHED = "published"
# Variant of an answer in place of a version that cannot answer.
FALLBACK = "fallback"


class Target:
    """One callable version of a model, and its name in answers."""

    __slots__ = (
        "_compiled",
        "_low",
        "_signature",
        "_tools",
        "cache",
        "cache_key",
        "engines",
        "key",
        "model_json",
        "quarantined",
        "repeatable",
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
        self.engines = version.engines
        self.repeatable = version.repeatable
        self.quarantined = version.quarantined
        self.model_json = _model_json(model.name, version, variant)
        self.cache: CachePolicy | None = model.cache if version.deterministic else None
        # Another artifact must not share cached predictions.
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
        """Return the decoder and the encoder, compiled at the first call."""
        if self._tools is None:
            self._tools = (
                InstanceDecoder(self._signature),
                AnswerEncoder(self._signature, low_confidence_below=self._low),
            )
        return self._tools

    def compiled(self, make: "Callable[[Target], Made]") -> Made:
        """Return the result of `make`, which is called once for this target.

        `make` may use only the key, the version and the signature, which never change.
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
        # After the aliases, because an alias may be another version's number.
        self._by_name |= {str(n): target for n, target in self._by_number.items()}
        # Targets of the fallback by reason, made when first needed.
        self._fallbacks: dict[str, Target] = {}
        if before is not None and before.model.variants == model.variants:
            # Keep the wheel at its position, so that shares stay exact.
            self._wheel: Wheel | None = before._wheel
        else:
            self._wheel = Wheel(model.variants) if model.variants else None

    def named(self, version: str) -> Target | None:
        """Find a version by its number or an alias."""
        return self._by_name.get(version)

    def fallback(self, reason: str) -> Target | None:
        """Return the version that answers after an error with the code `reason`."""
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

    @property
    def default(self) -> Target | None:
        """The route's default; None while none is served."""
        variants = (v for v in self.model.variants if v.role == "default")
        return next((self._target(variant) for variant in variants), None)

    def next(self) -> Target | None:
        """Choose for a call without a sticky key; None while no default is served."""
        if self._wheel is None:
            return None
        return self._target(self._wheel.next())

    def pinned(self, sticky_key: str) -> Target | None:
        """Choose the version for a sticky key: always the same for the same key."""
        model = self.model
        if not model.variants:
            return None
        return self._target(
            choose_pinned(model.variants, salt=model.name, sticky_key=sticky_key)
        )

    def _target(self, variant: Variant) -> Target:
        return self._by_number[variant.version]


class _FallbackUsed(msgspec.Struct):
    name: str
    # None: no version answered.
    version: str | None
    fallback_reason: str
    variant: str = FALLBACK
    fallback: bool = True


def fallback_json(name: str, version: str | None, *, reason: str) -> msgspec.Raw:
    """Write the member `model` of a fallback's answer."""
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
