"""Weigh evidence about a canary, so that looking at it all the time costs nothing.

Every test here is an e-process: it starts at 1, and while its null hypothesis holds,
the chance that it ever reaches 1/alpha is at most alpha (Ville 1939; Howard, Ramdas,
McAuliffe and Sekhon 2021), for any number of looks, any stopping rule, and weights that
change on the way. A test is the mean of the likelihood ratios of its alternatives.
Their logarithms are kept as sums, one for each alternative, which merge by addition.
"""

import functools
import math
from collections.abc import Callable, Sequence

Sums = list[float]


class OddsTest:
    """Test how much more often than its chance something falls on the canary.

    A call was dealt to the canary with the chance c. If what is counted (an error, a
    slow answer) happens r times as often to the canary as to the default, then it is on
    the canary with probability p(r) = c·r / (c·r + 1 - c), whatever the base rate. An
    outage of both adds to both in proportion and moves nothing.

    The null hypothesis is r <= `null` if all `alternatives` are greater, r >= `null` if
    all are less, and r = `null` otherwise. Because p grows with r, the expected factor
    is at most 1 for each r of the null hypothesis.
    """

    def __init__(self, null: float, alternatives: Sequence[float]) -> None:
        if not alternatives or null <= 0 or min(alternatives) <= 0:
            raise ValueError("ratios are positive numbers")
        self._null = null
        self._alternatives = tuple(alternatives)
        self._steps = functools.lru_cache(maxsize=16_384)(self._compute_steps)

    def start(self) -> Sums:
        return [0.0] * len(self._alternatives)

    def add(self, sums: Sums, *, chance: float, on_canary: bool) -> None:
        """Add one event; `chance` is what its call had of the canary.

        A chance of 0 or 1 says nothing and changes nothing.
        """
        if 0 < chance < 1:
            for index, step in enumerate(self._steps(chance, on_canary)):
                sums[index] += step

    def _compute_steps(self, chance: float, on_canary: bool) -> tuple[float, ...]:
        return tuple(
            self._log_chance(ratio, chance, on_canary)
            - self._log_chance(self._null, chance, on_canary)
            for ratio in self._alternatives
        )

    @staticmethod
    def _log_chance(ratio: float, chance: float, on_canary: bool) -> float:
        whole = chance * ratio + 1 - chance
        return math.log((chance * ratio if on_canary else 1 - chance) / whole)


class ShareTest:
    """Test the mean of values from 0 to 1 by betting (Waudby-Smith and Ramdas 2024).

    The null hypothesis is mean <= `null` if `greater`, else mean >= `null`.
    """

    # Parts of the largest bet that cannot lose everything in one step.
    _BETS = (0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 0.95)

    def __init__(self, null: float, *, greater: bool) -> None:
        if not 0 < null < 1:
            raise ValueError("a share is between 0 and 1")
        self._null = null
        self._sign = 1.0 if greater else -1.0
        most = 1 / null if greater else 1 / (1 - null)
        self._bets = tuple(most * part for part in self._BETS)
        self._steps = functools.lru_cache(maxsize=1024)(self._compute_steps)

    def start(self) -> Sums:
        return [0.0] * len(self._bets)

    def add(self, sums: Sums, value: float) -> None:
        for index, step in enumerate(self._steps(value)):
            sums[index] += step

    def _compute_steps(self, value: float) -> tuple[float, ...]:
        gain = self._sign * (value - self._null)
        return tuple(math.log1p(bet * gain) for bet in self._bets)


def log_e(sums: Sequence[float]) -> float:
    """Return the logarithm of an e-process: of the mean over its alternatives."""
    most = max(sums)
    return most + math.log(sum(math.exp(each - most) for each in sums) / len(sums))


def part_of_proof(sums: Sequence[float], alpha: float) -> float:
    """Return how far the evidence is: 0 or less for none, 1 for proof at `alpha`."""
    return log_e(sums) / math.log(1 / alpha)


def rate_bounds(hits: int, calls: int, *, alpha: float = 0.05) -> tuple[float, float]:
    """Return a confidence sequence for a rate: it holds at all times together.

    By the beta-binomial mixture (Robbins 1970; Howard, Ramdas, McAuliffe and Sekhon
    2021): the rates p against which the mixture over p', Beta(1/2, 1/2), of likelihood
    ratios is below 1/alpha.
    """
    if not calls:
        return 0.0, 1.0
    seen = hits / calls

    def is_inside(rate: float) -> bool:
        return _log_mixture(hits, calls, rate) < math.log(1 / alpha)

    return _edge(is_inside, seen, 0.0), _edge(is_inside, seen, 1.0)


def quantile_ranks(
    quantile: float, calls: int, *, alpha: float = 0.05
) -> tuple[int, int] | None:
    """Return the ranks (1 to `calls`) between which a quantile is, at all times.

    How many values lie up to the true quantile is a number of coin tosses with a known
    chance, which the mixture of `rate_bounds` bounds (as Howard and Ramdas 2022 do).
    None if there are too few calls to bound it on both sides.
    """

    def is_inside(rank: float) -> bool:
        below = int(rank)
        return _log_mixture(below, calls, quantile) < math.log(1 / alpha)

    middle = float(round(quantile * calls))
    if not calls or is_inside(0) or is_inside(calls):
        return None
    least = math.ceil(_edge(is_inside, middle, 0.0))
    most = math.floor(_edge(is_inside, middle, float(calls)))
    return max(1, least), min(calls, most + 1)


def _log_mixture(hits: int, calls: int, rate: float) -> float:
    misses = calls - hits
    if (rate <= 0 and hits) or (rate >= 1 and misses):
        return math.inf
    mixture = (
        math.lgamma(hits + 0.5)
        + math.lgamma(misses + 0.5)
        - math.lgamma(calls + 1.0)
        - math.log(math.pi)
    )
    under_rate = (hits * math.log(rate) if hits else 0.0) + (
        misses * math.log1p(-rate) if misses else 0.0
    )
    return mixture - under_rate


def _edge(is_inside: Callable[[float], bool], inside: float, outside: float) -> float:
    """Return the edge of an interval between a place inside and one outside."""
    if is_inside(outside):
        return outside
    for _ in range(50):
        middle = (inside + outside) / 2
        if is_inside(middle):
            inside = middle
        else:
            outside = middle
    return outside
