"""Add up what calls say about a canary and its default, and what may not be believed.

The rules for what counts, each with a test by its name:

- Only calls that were dealt by chance count as evidence, each with its own chance.
- One error for each key and minute: errors of one key are not independent.
- What a caller did wrong is nobody's error; what only the canary's signature refuses is
  the canary's.
- A sticky caller (a unit) was dealt once, not with each call: its first call, error
  and slow call count. They do not tell how much less often a canary errs, because in
  time each unit has an error on either version: for that, the share of units counts.
- An answer by a fallback is an error of the version in charge.
- A call that its caller gave up is slow if it had lasted so long; else it says nothing.
- Calls before the canary was warm, and before the stage's threshold is known, count for
  nothing; cached answers say nothing of speed.
- The share of the canary is looked at only when all calls of a time have ended: slow
  ones end later, and until then the quick version seems to get more than its share.
"""

import math
from collections.abc import Mapping

import msgspec

from inference.rollouts import callers
from inference.rollouts.answers import AnswerSums
from inference.rollouts.drifting import DriftTest, Predictions
from inference.rollouts.evidence import OddsTest, ShareTest
from inference.rollouts.feedback import FeedbackSums
from registry.rules.rollout_plans import Plan

WORSE_RATIOS = (1.5, 2.0, 3.0, 5.0, 10.0, 20.0)
_BETTER_PARTS = (0.1, 0.25, 0.4, 0.5, 0.65, 0.8)
# How much more often a broken dealing might choose the canary.
_DEALING_RATIOS = (0.33, 0.66, 0.8, 0.9, 1.1, 1.25, 1.5, 3.0)
# Buckets of latencies: each ends 2**(1/8) = 9 % after the one before.
_BUCKETS_PER_DOUBLING = 8
# A threshold for slow calls needs so many of the default's calls.
CALLS_FOR_A_THRESHOLD = 200
SLOW_QUANTILE = 0.95
# Of a canary with a slow tail.
VERY_SLOW_QUANTILE = 0.99
# What a unit has had counted: its dealing, call, error, timed call and slow call.
_DEALT, _CALLED, _FAILED, _TIMED = 1, 2, 4, 8
_SLOW, _VERY_SLOW, _PREDICTED = 16, 32, 64
# Further units of a stage count for nothing.
MOST_UNITS = 2_000
# Calls other than streams end within this time; they are grouped by when they began.
_ALL_ENDED_S = 60.0
_GROUP_S = 10.0


class CountedCall(msgspec.Struct, frozen=True, gc=False):
    """One answered call, as the gateway dealt it."""

    # Seconds since the epoch.
    at: float
    key_id: str
    on_canary: bool
    # Its chance of the canary; 0 or 1 if nothing was left to chance.
    chance: float
    # Calls of one size take similar times, e.g. "predict 1".
    size: str
    total_us: int
    # Why the version in charge did not answer; empty if it did.
    fault: str = ""
    # Its caller made a mistake, so that no version did anything.
    refused: bool = False
    # Its caller left after `total_us`, before the version in charge had answered.
    gave_up: bool = False
    # The answer says nothing of the version's speed.
    cached: bool = False
    # It may last for minutes, so its end says nothing of the share.
    is_stream: bool = False
    # The sticky caller that was dealt; empty: this very call was.
    unit: str = ""
    # A code of its first prediction; less than 0 if there is none to compare.
    predicted: int = -1


class Side(msgspec.Struct):
    """What people see of one version."""

    calls: int = 0
    faults: int = 0
    # Calls that their callers gave up.
    given_up: int = 0
    # Slow calls, and calls of sizes whose threshold was known.
    slow: int = 0
    very_slow: int = 0
    timed: int = 0
    # Calls in each bucket of latency.
    latencies: dict[int, int] = {}
    codes: dict[str, int] = {}


class Sums(msgspec.Struct):
    """All that a rollout remembers of its calls."""

    default: Side
    canary: Side
    errors: list[float]
    errors_safe: list[float]
    error_share: list[float]
    slow: list[float]
    very_slow: list[float]
    slow_safe: list[float]
    slow_share: list[float]
    dealing: list[float]
    # What calls of the last minute say of the share, by when they began.
    dealing_waits: dict[int, list[float]] = {}
    # When the newest call began: seconds since the epoch.
    newest_at: float = 0.0
    # Calls of the canary in this stage.
    stage_calls: int = 0
    # Before this time nothing counts: seconds since the epoch.
    counts_from: float = 0.0
    # The first keys that called, and the first with an error, or a slow call, of the
    # canary.
    keys: list[str] = []
    failing_keys: list[str] = []
    slow_keys: list[str] = []
    # The first keys of all stages.
    callers: list[str] = []
    # The minute of the newest error of a key that was counted.
    counted: dict[str, int] = {}
    # What was counted of each unit since units were dealt with this weight.
    units: dict[str, int] = {}
    units_weight_percent: int = 0
    # Latencies of the default by size of the input, and the thresholds made of them.
    sizes: dict[str, dict[int, int]] = {}
    # What slow and very slow calls take longer than.
    thresholds_us: dict[str, tuple[int, int]] = {}
    # What the canary answered as the route's shadow.
    answers: AnswerSums = msgspec.field(default_factory=AnswerSums)
    predictions: Predictions = msgspec.field(default_factory=Predictions)
    feedback: FeedbackSums = msgspec.field(default_factory=FeedbackSums)


class Counter:
    """Count calls into sums, as a plan asks."""

    def __init__(self, plan: Plan) -> None:
        self.errors = OddsTest(plan.most_error_ratio, _worse(plan.most_error_ratio))
        self.errors_safe = OddsTest(
            plan.safe_error_ratio, [plan.safe_error_ratio * p for p in _BETTER_PARTS]
        )
        self.error_share = ShareTest(plan.safe_error_percent / 100, greater=False)
        self.slow = OddsTest(plan.most_slow_ratio, _worse(plan.most_slow_ratio))
        self.slow_safe = OddsTest(
            plan.safe_slow_ratio, [plan.safe_slow_ratio * p for p in _BETTER_PARTS]
        )
        self.slow_share = ShareTest(plan.safe_slow_percent / 100, greater=False)
        self.dealing = OddsTest(1.0, _DEALING_RATIOS)
        self.drift: DriftTest | None = None
        if plan.on_drift != "ignore":
            self.drift = DriftTest(plan.most_drift_percent / 100)

    def start(self) -> Sums:
        return Sums(
            default=Side(),
            canary=Side(),
            errors=self.errors.start(),
            errors_safe=self.errors_safe.start(),
            error_share=self.error_share.start(),
            slow=self.slow.start(),
            very_slow=self.slow.start(),
            slow_safe=self.slow_safe.start(),
            slow_share=self.slow_share.start(),
            dealing=self.dealing.start(),
        )

    def add(self, sums: Sums, call: CountedCall) -> None:
        """Count one call."""
        if call.at < sums.counts_from:
            return
        self._add_share(sums, call)
        if call.refused:
            return
        side = sums.canary if call.on_canary else sums.default
        if call.gave_up and not call.fault:
            side.given_up += 1
            self._add_slowness(sums, side, call)
            return
        side.calls += 1
        sums.stage_calls += call.on_canary
        callers.note(sums.keys, call.key_id)
        callers.note(sums.callers, call.key_id)
        if call.on_canary and _is_first(sums, call, _CALLED):
            self.error_share.add(sums.error_share, float(bool(call.fault)))
        if call.fault:
            self._add_fault(sums, side, call)
            return
        if not call.cached:
            self._add_time(sums, side, call)
        if (
            self.drift is not None
            and call.predicted >= 0
            and _is_first(sums, call, _PREDICTED)
        ):
            self.drift.add(
                sums.predictions,
                code=call.predicted,
                chance=call.chance,
                on_canary=call.on_canary,
            )

    def _add_share(self, sums: Sums, call: CountedCall) -> None:
        group = int(call.at // _GROUP_S)
        if call.at > sums.newest_at:
            moved = group != int(sums.newest_at // _GROUP_S)
            sums.newest_at = call.at
            if moved:
                self._close_groups(sums)
        over = (group + 1) * _GROUP_S < sums.newest_at - _ALL_ENDED_S
        # One that is read so late says nothing: others of its time may be missing.
        if over or call.is_stream or not _is_first(sums, call, _DEALT):
            return
        waits = sums.dealing_waits.setdefault(group, self.dealing.start())
        self.dealing.add(waits, chance=call.chance, on_canary=call.on_canary)

    def _close_groups(self, sums: Sums) -> None:
        before = sums.newest_at - _ALL_ENDED_S
        for group in sorted(sums.dealing_waits):
            if (group + 1) * _GROUP_S < before:
                for index, step in enumerate(sums.dealing_waits.pop(group)):
                    sums.dealing[index] += step
        callers.forget_old(sums.counted, now=sums.newest_at)

    def _add_fault(self, sums: Sums, side: Side, call: CountedCall) -> None:
        side.faults += 1
        side.codes[call.fault] = side.codes.get(call.fault, 0) + 1
        if call.on_canary:
            callers.note(sums.failing_keys, call.key_id)
        is_known = sums.units.get(call.unit, 0) & _FAILED
        # In this order: only an error that counts uses up its key's minute.
        if is_known or not callers.is_first_of_its_minute(
            sums.counted, key_id=call.key_id, at=call.at
        ):
            return
        if not _is_first(sums, call, _FAILED):
            return
        chance, on_canary = call.chance, call.on_canary
        self.errors.add(sums.errors, chance=chance, on_canary=on_canary)
        if not call.unit:
            self.errors_safe.add(sums.errors_safe, chance=chance, on_canary=on_canary)

    def _add_time(self, sums: Sums, side: Side, call: CountedCall) -> None:
        bucket = bucket_of(call.total_us)
        side.latencies[bucket] = side.latencies.get(bucket, 0) + 1
        if call.size in sums.thresholds_us:
            self._add_slowness(sums, side, call)
        elif not call.on_canary:
            _learn_threshold(sums, call.size, bucket)

    def _add_slowness(self, sums: Sums, side: Side, call: CountedCall) -> None:
        slow_us, very_slow_us = sums.thresholds_us.get(call.size, (math.inf, math.inf))
        is_slow = call.total_us > slow_us
        if call.gave_up and not is_slow:
            # Nobody knows whether its answer would have been slow.
            return
        side.timed += 1
        if call.on_canary and _is_first(sums, call, _TIMED):
            self.slow_share.add(sums.slow_share, float(is_slow))
        if not is_slow:
            return
        side.slow += 1
        if call.on_canary:
            callers.note(sums.slow_keys, call.key_id)
        chance, on_canary = call.chance, call.on_canary
        if _is_first(sums, call, _SLOW):
            self.slow.add(sums.slow, chance=chance, on_canary=on_canary)
            if not call.unit:
                self.slow_safe.add(sums.slow_safe, chance=chance, on_canary=on_canary)
        if call.total_us > very_slow_us:
            side.very_slow += 1
            if _is_first(sums, call, _VERY_SLOW):
                self.slow.add(sums.very_slow, chance=chance, on_canary=on_canary)


def begin_stage(sums: Sums, *, counts_from: float, weight_percent: int = 0) -> None:
    """Begin a stage: evidence stays; thresholds of speed are learnt again.

    A rollback needs errors of several keys within one stage. Units were dealt anew only
    if the weight is another; else what was counted of them must not count again.
    """
    sums.stage_calls = 0
    sums.counts_from = counts_from
    sums.sizes, sums.thresholds_us = {}, {}
    sums.keys, sums.failing_keys, sums.slow_keys = [], [], []
    if weight_percent != sums.units_weight_percent:
        sums.units, sums.units_weight_percent = {}, weight_percent


def forget_evidence(counter: Counter, sums: Sums, *, guard: str) -> None:
    """Let the test that paused a rollout begin again, because a person resumed it.

    Other predictions may be better ones: who goes on accepts them.
    """
    if guard == "dealing":
        sums.dealing, sums.dealing_waits = counter.dealing.start(), {}
    elif guard == "errors":
        sums.errors, sums.failing_keys = counter.errors.start(), []
    elif guard == "slow":
        sums.slow, sums.very_slow = counter.slow.start(), counter.slow.start()
        sums.slow_keys = []
    elif guard == "answers":
        sums.answers = AnswerSums()
    elif guard == "drift":
        sums.predictions.accepted = True
    elif guard == "feedback":
        sums.feedback = FeedbackSums(counts_from=sums.feedback.counts_from)


def bucket_of(microseconds: int) -> int:
    return math.floor(_BUCKETS_PER_DOUBLING * math.log2(max(1, microseconds)))


def end_of_us(bucket: int) -> float:
    """Return where a bucket ends, in microseconds."""
    return math.exp2((bucket + 1) / _BUCKETS_PER_DOUBLING)


def value_at_rank(latencies: Mapping[int, int], rank: int) -> float:
    """Return the end of the bucket with the value of a rank (1 is the least), in µs."""
    seen = 0
    for bucket in sorted(latencies):
        seen += latencies[bucket]
        if seen >= rank:
            return end_of_us(bucket)
    raise ValueError("there are fewer values")


def _worse(null: float) -> list[float]:
    return [ratio for ratio in WORSE_RATIOS if ratio > null] or [null * 2]


def _learn_threshold(sums: Sums, size: str, bucket: int) -> None:
    """Fix what counts as slow for inputs of a size, before any such call counts."""
    seen = sums.sizes.setdefault(size, {})
    seen[bucket] = seen.get(bucket, 0) + 1
    calls = sum(seen.values())
    if calls >= CALLS_FOR_A_THRESHOLD:
        slow_us, very_slow_us = (
            round(value_at_rank(seen, math.ceil(quantile * calls)))
            for quantile in (SLOW_QUANTILE, VERY_SLOW_QUANTILE)
        )
        sums.thresholds_us[size] = slow_us, very_slow_us
        del sums.sizes[size]


def _is_first(sums: Sums, call: CountedCall, what: int) -> bool:
    """Note that something of the call's unit counts; False if it did already."""
    if not call.unit:
        return True
    counted = sums.units.get(call.unit)
    if counted is None:
        if len(sums.units) >= MOST_UNITS:
            return False
        counted = 0
    if counted & what:
        return False
    sums.units[call.unit] = counted | what
    return True
