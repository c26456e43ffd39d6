"""Choose the variant that answers a request. Without I/O."""

import hashlib
import random
from collections.abc import Callable
from typing import Literal

import msgspec

Role = Literal["default", "canary"]
# The chances that a call of the default had of further canaries, by their versions.
Chances = tuple[tuple[int, float], ...]


# Seeded by the system, so another process cannot know the order.
_shuffle_secretly = random.Random().shuffle


class Variant(msgspec.Struct, frozen=True, gc=False):
    """A model version in a route with a role and a weight in percent."""

    version: int
    role: Role
    weight_percent: int


class Deal:
    """Deal unpinned calls, exactly by weight in every block of 100.

    The order of each block is secret, so that no caller falls in step with a canary.
    Evidence (`inference/rollouts/`) compares a canary with the default, so the chance
    that a call had of it is its part of the turns that both of them had left.
    """

    __slots__ = (
        "_block",
        "_canaries",
        "_canaries_left",
        "_left",
        "_left_of",
        "_shuffle",
        "_weights",
    )

    def __init__(
        self,
        variants: tuple[Variant, ...],
        *,
        shuffle: Callable[[list[Variant]], None] = _shuffle_secretly,
    ) -> None:
        _require_whole(variants)
        self._shuffle = shuffle
        # One of 100 turns after another; none are left of a block not yet begun.
        self._block = [v for v in variants for _ in range(v.weight_percent)]
        self._canaries = sum(variant.role == "canary" for variant in self._block)
        self._canaries_left = self._left = 0
        canaries = [variant for variant in variants if variant.role == "canary"]
        # Empty unless there are several: one needs no counts of its own.
        self._weights: dict[int, int] = {}
        if len(canaries) > 1:
            self._weights = {each.version: each.weight_percent for each in canaries}
        self._left_of: dict[int, int] = {}

    def next(self) -> tuple[Variant, float, Chances]:
        """Return the variant of the next call, and the chances that the call had.

        The chance of the canary that gets the call, or of the route's first canary if
        the default gets it; then the chances of the further canaries.
        """
        left = self._left
        if not left:
            left = len(self._block)
            if self._canaries:
                self._shuffle(self._block)
                self._canaries_left = self._canaries
            self._left_of = self._weights.copy()
        chance = self._canaries_left / left
        self._left = left - 1
        variant = self._block[left - 1]
        if self._left_of:
            return self._one_of_several(variant, left)
        if variant.role == "canary":
            self._canaries_left -= 1
        return variant, chance, ()

    def _one_of_several(
        self, variant: Variant, left: int
    ) -> tuple[Variant, float, Chances]:
        of_default = left - self._canaries_left
        if variant.role == "canary":
            own = self._left_of[variant.version]
            self._left_of[variant.version] = own - 1
            self._canaries_left -= 1
            return variant, own / (own + of_default), ()
        (_, first), *others = [
            (version, own / (own + of_default))
            for version, own in self._left_of.items()
        ]
        return variant, first, tuple(others)


def choose_pinned(
    variants: tuple[Variant, ...], *, salt: str, sticky_key: str
) -> Variant:
    """Choose the same variant for the same key as long as the weights stay the same.

    Each key hashes to one of 100 slots, and canaries have the lowest slots: when the
    weight of the only one grows, keys move only from the default to the canary.
    """
    _require_whole(variants)
    slot = _slot(salt, sticky_key)
    canaries = [variant for variant in variants if variant.role == "canary"]
    for canary in canaries:
        if slot < canary.weight_percent:
            return canary
        slot -= canary.weight_percent
    return next(variant for variant in variants if variant.role == "default")


def chances_by_weight(
    variants: tuple[Variant, ...], *, version: int
) -> tuple[float, Chances]:
    """Return the chances of canaries that a pinned caller of `version` had.

    As `Deal.next` does, but by the weights: a secret salt leaves a hash to chance.
    """
    [of_default] = [v.weight_percent for v in variants if v.role == "default"]
    chances = [
        (each.version, each.weight_percent / (each.weight_percent + of_default))
        for each in variants
        # One of weight 0 beside a default of 0 has no chance, and gets no caller.
        if each.role == "canary" and each.weight_percent + of_default
    ]
    for canary, chance in chances:
        if canary == version:
            return chance, ()
    (_, first), *others = chances
    return first, tuple(others)


def name_unit(salt: str, sticky_key: str) -> str:
    """Return a short name for a pinned caller, which without the salt tells nothing."""
    text = f"{salt}\0unit\0{sticky_key}".encode(errors="surrogatepass")
    return hashlib.blake2b(text, digest_size=6).hexdigest()


def _slot(salt: str, sticky_key: str) -> int:
    # Header bytes that are not text arrive as surrogates and must not fail here.
    text = f"{salt}\0{sticky_key}".encode(errors="surrogatepass")
    digest = hashlib.blake2b(text, digest_size=8).digest()
    # 100 slots of equal size (up to 2**-57), without the bias of a modulo.
    return int.from_bytes(digest) * 100 >> 64


def _require_whole(variants: tuple[Variant, ...]) -> None:
    weights = [variant.weight_percent for variant in variants]
    if sum(weights) != 100 or min(weights, default=0) < 0:
        raise ValueError(f"weights must be 0 to 100 and sum to 100, not {weights}")
    if sum(variant.role == "default" for variant in variants) != 1:
        raise ValueError("a route has exactly one default variant")
