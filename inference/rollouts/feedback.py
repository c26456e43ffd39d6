"""Weigh what callers say of answers: does the canary's mean score fall too far?

The null hypothesis: at any time the mean score of the default's answers is at most
`most_drop` above that of the canary's. Callers, hours and what they ask may change on
the way, as they change for both versions.

A call was dealt to the canary (z = 1) with the chance c, and its score is s, from 0 to
1. With any b that was known before,

    E[-(z - c)(s - b)] = c(1 - c)(mean of the default - mean of the canary),

so 1 + bet * (-(z - c)(s - b) - c(1 - c) * most_drop) has an expectation of at most 1
under the null hypothesis, and the product over all feedback is an e-process for each
bet that was fixed before (Waudby-Smith and Ramdas 2024). b is the mean of the default's
scores so far: then it matters little that callers say something of good and bad answers
not equally often. If they say something of the canary r times as often as of the
default, the bound is most_drop / r in the worst case.

The unit is one score for each key and minute: instances of one call share its dealing,
and one caller with a script must not decide alone.
"""

import math

import msgspec

from inference.rollouts import callers
from inference.rollouts.evidence import Sums

# The best bet is about the excess of the drop over the variance of scores.
_BETS = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4)
# No score may take all that was won.
_MOST_LOST = 0.9


class Scores(msgspec.Struct):
    """The scores of one version that count as evidence."""

    count: int = 0
    total: float = 0.0

    @property
    def mean(self) -> float:
        return self.total / self.count if self.count else 0.0


def _start() -> Sums:
    return [0.0] * len(_BETS)


class FeedbackSums(msgspec.Struct):
    """All that a rollout remembers of feedback."""

    default: Scores = msgspec.field(default_factory=Scores)
    canary: Scores = msgspec.field(default_factory=Scores)
    drop: Sums = msgspec.field(default_factory=_start)
    # The first keys whose calls to the canary got feedback.
    keys: list[str] = []
    # What is said of earlier calls does not count: seconds since the epoch.
    counts_from: float = 0.0


def add(
    sums: FeedbackSums,
    *,
    most_drop: float,
    key_id: str,
    chance: float,
    on_canary: bool,
    score: float,
) -> None:
    """Count one score of a call that was dealt to the canary with `chance`.

    A chance of 0 or 1 says nothing of a difference.
    """
    if 0 < chance < 1:
        expected = (sums.default.total + 0.5) / (sums.default.count + 1)
        gain = (chance - on_canary) * (score - expected)
        gain -= chance * (1 - chance) * most_drop
        highest = _MOST_LOST / _most_lost(chance, expected, most_drop)
        for place, bet in enumerate(_BETS):
            sums.drop[place] += math.log1p(min(bet, highest) * gain)
    side = sums.canary if on_canary else sums.default
    side.count += 1
    side.total += score
    if on_canary:
        callers.note(sums.keys, key_id)


def _most_lost(chance: float, expected: float, most_drop: float) -> float:
    """Return how much a bet of 1 may lose, whatever the score and the side."""
    on_canary = (1 - chance) * (1 - expected + chance * most_drop)
    on_default = chance * (expected + (1 - chance) * most_drop)
    return max(on_canary, on_default)
