"""Choose the version of a model that answers, and compile what its calls need."""

from collections.abc import Callable
from email.utils import formatdate
from typing import Any, TypeVar
from urllib.parse import quote

import msgspec

from inference.codecs.answers import AnswerEncoder
from inference.codecs.decoding import InstanceDecoder
from inference.codecs.optional_inputs import OptionalInputs, optional_inputs_of
from inference.engine.signatures.signature import Signature
from inference.engine.wire.messages import VersionKey
from inference.snapshot.contents import (
    CachePolicy,
    CallableModel,
    CallableVersion,
    Ending,
)
from registry.routing import Chances, Deal, Variant, chances_by_weight, choose_pinned

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
        "ending",
        "engines",
        "headers",
        "key",
        "model_json",
        "optional",
        "quarantined",
        "repeatable",
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
        ending: Ending | None = None,
    ) -> None:
        self.key = VersionKey(model.name, version.version)
        self.version = str(version.version)
        self.ending = ending
        # What each answer of it has.
        self.headers = (
            (b"x-model-version", self.version.encode()),
            *(() if ending is None else ending_headers(model.name, ending)),
        )
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
            self.optional: OptionalInputs | None = before.optional
        else:
            self.optional = optional_inputs_of(self._signature)

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


class ShadowTarget(msgspec.Struct, frozen=True, gc=False):
    """The version that gets copies of the default's calls."""

    target: Target
    default: int
    percent: int
    tolerance: float
    keeps_examples: bool
    # It reads every body as the default does.
    reads_same: bool


class ModelEntry:
    """A model with its route and its callable versions."""

    __slots__ = (
        "_by_name",
        "_by_number",
        "_deal",
        "_fallbacks",
        "canary",
        "default",
        "headers",
        "model",
        "only",
        "shadow",
        "sticks_to_keys",
    )

    def __init__(self, model: CallableModel, before: "ModelEntry | None") -> None:
        self.model = model
        # What each answer has that no version gives.
        self.headers = (
            () if model.ending is None else ending_headers(model.name, model.ending)
        )
        roles = {variant.version: variant.role for variant in model.variants}
        previous = before._by_number if before is not None else {}
        self._by_number: dict[int, Target] = {
            version.version: Target(
                model,
                version,
                variant=roles.get(version.version, PUBLISHED),
                before=previous.get(version.version),
                ending=model.ending,
            )
            for version in model.versions
        }
        named = {version.version: self._named(version) for version in model.versions}
        self._by_name = {
            alias: named[version.version]
            for version in model.versions
            for alias in version.aliases
        }
        # After the aliases, because an alias may be another version's number.
        self._by_name |= {str(n): target for n, target in named.items()}
        # Targets of the fallback by reason, made when first needed.
        self._fallbacks: dict[str, Target] = {}
        # The first version that gets a share of the calls, beside the default.
        self.canary = next((v.version for v in model.variants if v.role == "canary"), 0)
        # The route's default; None while none is served.
        self.default = next(
            (self._target(it) for it in model.variants if it.role == "default"), None
        )
        # What gets all calls; None if a canary gets some, or while nothing is served.
        self.only = self.default if len(model.variants) == 1 else None
        self.shadow = self._shadow()
        sticky = model.sticky
        self.sticks_to_keys = sticky is not None and sticky.by == "key"
        if before is not None and before.model.variants == model.variants:
            # Go on with the block that was begun, so that shares stay exact.
            self._deal: Deal | None = before._deal
        else:
            self._deal = Deal(model.variants) if model.variants else None

    def _shadow(self) -> ShadowTarget | None:
        """Return what gets copies; None if there is no shadow, or it is the default."""
        wanted, default = self.model.shadow, self.default
        if wanted is None or default is None:
            return None
        target = self._by_number.get(wanted.version)
        if target is None or target is default or target.quarantined:
            return None
        return ShadowTarget(
            target,
            default.key.version,
            wanted.percent,
            wanted.tolerance,
            wanted.keeps_examples,
            target.signature == default.signature,
        )

    def _named(self, version: CallableVersion) -> Target:
        """Return the target for callers who name the version, who are told its end."""
        target = self._by_number[version.version]
        ending = self.model.ending_of(version)
        if ending == target.ending:
            return target
        return Target(
            self.model, version, variant=target.variant, before=target, ending=ending
        )

    def named(self, version: str) -> Target | None:
        """Find a version by its number or an alias."""
        return self._by_name.get(version)

    def numbered(self, version: int) -> Target | None:
        """Find a version by its number, whatever aliases there are."""
        return self._by_number.get(version)

    @property
    def targets(self) -> list[Target]:
        """All callable versions, the newest first."""
        return [self._by_number[number] for number in sorted(self._by_number)[::-1]]

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
            target = Target(
                self.model,
                version,
                variant=FALLBACK,
                before=before,
                ending=self.model.ending,
            )
            target.model_json = fallback_json(
                self.model.name, target.version, reason=reason
            )
            self._fallbacks[reason] = target
        return target

    def next(self) -> tuple[Target | None, float, Chances]:
        """Choose for a call without a sticky key, with its chances of canaries.

        None while no default is served. The chances are those of `Deal.next`.
        """
        if self._deal is None:
            return None, 0.0, ()
        variant, chance, others = self._deal.next()
        return self._target(variant), chance, others

    def pinned(self, sticky_key: str) -> Target | None:
        """Choose the version for a sticky key: always the same for the same key."""
        model = self.model
        if not model.variants:
            return None
        return self._target(
            choose_pinned(model.variants, salt=model.salt, sticky_key=sticky_key)
        )

    def chances_of(self, version: int) -> tuple[float, Chances]:
        """Return the chances that a sticky caller of a version had; see `Deal.next`."""
        return chances_by_weight(self.model.variants, version=version)

    def _target(self, variant: Variant) -> Target:
        return self._by_number[variant.version]


def ending_headers(model: str, ending: Ending) -> tuple[tuple[bytes, bytes], ...]:
    """Write the headers of RFC 9745 and RFC 8594, and where people read more."""
    sunset = formatdate(ending.ends_at, usegmt=True)
    link = f'</docs/?model={quote(model, safe="")}>; rel="deprecation"'
    return (
        (b"deprecation", b"@%d" % ending.deprecated_at),
        (b"sunset", sunset.encode()),
        (b"link", f'{link}; type="text/html"'.encode()),
    )


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
