"""Test whether a canary's predictions are distributed as its default's.

The null hypothesis is that the two distributions differ by at most δ in total
variation: whatever set A of predictions one looks at, the canary's chance q(A) of one
in A is at most δ above the default's p(A). Predictions fall into bins, which are fixed
from the first of the default, before anything is tested.

Each call bets on one set: the bins that the canary has filled more often so far. With
c, the chance that the call had of the canary, 1(A) for a prediction in A, and m, the
default's share of A so far,

    x = (1(A) - m) / c         if it fell on the canary,
    x = -(1(A) - m) / (1 - c)  if it fell on the default.

A, m and c are known before the call is dealt. So the mean of x, given all before, is
(q(A) - m) - (p(A) - m) = q(A) - p(A), at most δ; m only makes x vary less. The least
that x can be is -w, where w is the greater of m / c and (1 - m) / (1 - c). So for each
bet b from 0 to 1 / (δ + w) the factor 1 + b (x - δ) is not negative, and its mean is at
most 1: their product is an e-process (Waudby-Smith and Ramdas 2024), also while the
share, or the inputs of both, change on the way. The test is the mean over bets.

A call without an answer says nothing here. Gateways compare one call for each key and
second, so that nobody who sends one row in a loop has the weight of many. They choose
it by its time alone, not by its side or its answer.
"""

import math
from bisect import bisect_right
from collections.abc import Sequence

import msgspec

# So many predictions of the default fix the bins.
PREDICTIONS_FOR_BINS = 200
# Up to so many distinct predictions have a bin each, such as labels; else deciles.
_MOST_DISTINCT = 8
_QUANTILES = 10
# Which bins the canary fills more often is a guess before it has made so many.
_LEAST_OF_CANARY = 20
# Parts of the largest bet that cannot lose everything in one step.
_BETS = (0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 0.95)


class Predictions(msgspec.Struct):
    """What a rollout remembers of predictions, and the evidence that they differ."""

    # The default's first, by code; empty once the bins are fixed.
    first: dict[int, int] = {}
    # Where a bin ends and the next begins.
    edges: list[int] = []
    # Calls by bin.
    default: list[int] = []
    canary: list[int] = []
    # Logarithms of the e-process of each bet.
    differ: list[float] = msgspec.field(default_factory=lambda: [0.0] * len(_BETS))
    # A person has seen that they differ, and went on.
    accepted: bool = False

    @property
    def more_of_canary(self) -> list[int]:
        """Return the bins that the canary fills more often than the default."""
        of_default, of_canary = sum(self.default), sum(self.canary)
        pairs = enumerate(zip(self.default, self.canary, strict=True))
        return [at for at, (d, c) in pairs if c * of_default > d * of_canary]


class DriftTest:
    """Test that the predictions of a canary differ by at most `share`."""

    def __init__(self, share: float) -> None:
        if not 0 < share < 1:
            raise ValueError("a share is between 0 and 1")
        self._share = share

    def add(
        self,
        seen: Predictions,
        *,
        code: int,
        chance: float,
        on_canary: bool,
    ) -> None:
        """Count the prediction of one call; codes of similar numbers are similar."""
        if seen.accepted:
            return
        if not seen.edges:
            if not on_canary:
                _learn_bins(seen, code)
            return
        if not 0 < chance < 1:
            return
        number = bisect_right(seen.edges, code)
        if sum(seen.canary) >= _LEAST_OF_CANARY:
            self._bet(seen, number, chance=chance, on_canary=on_canary)
        (seen.canary if on_canary else seen.default)[number] += 1

    def _bet(
        self, seen: Predictions, number: int, *, chance: float, on_canary: bool
    ) -> None:
        more = seen.more_of_canary
        usual = sum(seen.default[at] for at in more) / sum(seen.default)
        surprise = (number in more) - usual
        gain = surprise / chance if on_canary else -surprise / (1 - chance)
        worst = max(usual / chance, (1 - usual) / (1 - chance))
        whole = (gain - self._share) / (worst + self._share)
        for index, bet in enumerate(_BETS):
            seen.differ[index] += math.log1p(bet * whole)


def share_of(counts: Sequence[int], bins: Sequence[int]) -> tuple[int, int]:
    """Return how many calls are in some bins, and in all."""
    return sum(counts[number] for number in bins), sum(counts)


def _learn_bins(seen: Predictions, code: int) -> None:
    first = seen.first
    first[code] = first.get(code, 0) + 1
    total = sum(first.values())
    if total < PREDICTIONS_FOR_BINS:
        return
    if len(first) <= _MOST_DISTINCT:
        # Whatever is between two of them is new, and has bins of its own.
        edges = {edge for code in first for edge in (code, code + 1)}
    else:
        codes = [code for code in sorted(first) for _ in range(first[code])]
        edges = {codes[total * part // _QUANTILES] for part in range(1, _QUANTILES)}
    seen.edges = sorted(edges)
    seen.default = [0] * (len(edges) + 1)
    seen.canary = list(seen.default)
    for code, count in first.items():
        seen.default[bisect_right(seen.edges, code)] += count
    seen.first = {}
