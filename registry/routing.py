"""Choose the variant that answers a request. Without I/O."""

import hashlib
from itertools import cycle
from typing import Literal

import msgspec

Role = Literal["default", "canary"]


class Variant(msgspec.Struct, frozen=True, gc=False):
    """A model version in a route with a role and a weight in percent."""

    version: int
    role: Role
    weight_percent: int


class Wheel:
    """Distribute unpinned requests, exactly by weight over every 100 in a row.

    Smooth weighted round-robin, as in nginx, spreads a canary's turns evenly. The
    choices repeat after at most 100, so they are computed once and then cycled
    through.
    """

    def __init__(self, variants: tuple[Variant, ...]) -> None:
        self._schedule = cycle(_compute_schedule(variants))

    def next(self) -> Variant:
        return next(self._schedule)


def choose_pinned(
    variants: tuple[Variant, ...], *, salt: str, sticky_key: str
) -> Variant:
    """Choose the same variant for the same key as long as the weights stay the same.

    Each key hashes to one of 100 slots, and the canary has the lowest slots: when its
    weight grows, keys move only from the default to the canary.
    """
    _require_whole(variants)
    slot = _slot(salt, sticky_key)
    canaries = [variant for variant in variants if variant.role == "canary"]
    for canary in canaries:
        if slot < canary.weight_percent:
            return canary
        slot -= canary.weight_percent
    return next(variant for variant in variants if variant.role == "default")


def _slot(salt: str, sticky_key: str) -> int:
    # Header bytes that are not text arrive as surrogates and must not fail here.
    text = f"{salt}\0{sticky_key}".encode(errors="surrogatepass")
    digest = hashlib.blake2b(text, digest_size=8).digest()
    # 100 slots of equal size (up to 2**-57), without the bias of a modulo.
    return int.from_bytes(digest) * 100 >> 64


def _compute_schedule(variants: tuple[Variant, ...]) -> list[Variant]:
    _require_whole(variants)
    credit = [0] * len(variants)
    schedule = []
    for _ in range(100):
        for index, variant in enumerate(variants):
            credit[index] += variant.weight_percent
        chosen = credit.index(max(credit))
        credit[chosen] -= 100
        schedule.append(variants[chosen])
    return schedule


def _require_whole(variants: tuple[Variant, ...]) -> None:
    weights = [variant.weight_percent for variant in variants]
    if sum(weights) != 100 or min(weights, default=0) < 0:
        raise ValueError(f"weights must be 0 to 100 and sum to 100, not {weights}")
    if sum(variant.role == "default" for variant in variants) != 1:
        raise ValueError("a route has exactly one default variant")
