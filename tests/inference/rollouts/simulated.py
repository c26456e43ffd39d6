"""Simulate rollouts: gateways deal blocks to keys; some answers fail or are slow."""

import math
import random
from dataclasses import dataclass

from inference.rollouts.counting import CountedCall, Counter
from inference.rollouts.deciding import decide
from registry.routing import Deal, Variant, chances_by_weight, choose_pinned
from registry.rules.rollout_plans import Plan


@dataclass
class World:
    """What happens to calls."""

    error_rate: float = 0.01
    error_ratio: float = 1.0
    # How much longer the canary takes.
    slowness: float = 1.0
    # This part of its calls takes ten times as long.
    tail: float = 0.0
    calls: int = 10_000
    weight: int = 25
    keys: int = 40
    gateways: int = 3
    calls_per_s: float = 20.0
    # Both versions fail in this part of the calls.
    outage: tuple[float, float] = (0.0, 0.0)
    # A key whose calls fail on both versions.
    broken_key: bool = False
    # Keys keep their version, and few of them make most of the calls.
    sticky: bool = False
    # Calls come in bursts of one key.
    bursts: bool = False
    # The canary predicts the other label in this part of its calls.
    drift: float = 0.0


@dataclass
class Outcome:
    action: str
    guard: str
    calls: int
    canary_calls: int


def calls_of(world, *, seed):
    """Yield the calls of a world in their order."""
    chance = random.Random(seed)
    variants = (
        Variant(version=1, role="default", weight_percent=100 - world.weight),
        Variant(version=2, role="canary", weight_percent=world.weight),
    )
    deals = [
        Deal(variants, shuffle=random.Random(f"{seed} {n}").shuffle)
        for n in range(world.gateways)
    ]
    key, left_of_burst = 0, 0
    compared = {}
    for number in range(world.calls):
        if left_of_burst == 0:
            # With sticky keys, a quarter of them makes three fifths of the calls.
            place = chance.random() ** (3 if world.sticky else 1)
            key = int(place * world.keys)
            left_of_burst = chance.randrange(1, 40) if world.bursts else 1
        left_of_burst -= 1
        variant, of_canary, _ = deals[chance.randrange(world.gateways)].next()
        unit = f"key{key}" if world.sticky else ""
        if unit:
            variant = choose_pinned(variants, salt=f"{seed}", sticky_key=unit)
            of_canary, _ = chances_by_weight(variants, version=variant.version)
        on_canary = variant.role == "canary"
        part = number / world.calls
        rate = world.error_rate * (world.error_ratio if on_canary else 1)
        if world.outage[0] <= part < world.outage[1]:
            rate = 0.9
        if world.broken_key and key == 0:
            rate = 0.5
        predicted = -1
        second = int(number / world.calls_per_s)
        if compared.get(key) != second:
            compared[key] = second
            predicted = _label(chance, world.drift if on_canary else 0.0)
        total_us = 2000 * math.exp(chance.gauss(0, 0.4))
        if on_canary:
            total_us *= world.slowness
            total_us *= 10 if chance.random() < world.tail else 1
        yield CountedCall(
            at=number / world.calls_per_s,
            key_id=f"key{key}",
            on_canary=on_canary,
            chance=of_canary,
            unit=unit,
            size="predict 1",
            total_us=round(total_us),
            fault="MODEL_ERROR" if chance.random() < rate else "",
            predicted=predicted,
        )


def _label(chance, drift):
    """Choose one of three labels; `drift` is how often 2 comes in place of 0 or 1."""
    label = chance.choices((0, 1, 2), weights=(0.5, 0.3, 0.2))[0]
    return 2 if chance.random() < drift / 0.8 else label


def count(world, *, seed):
    """Return the sums of all calls of a world."""
    counter = Counter(Plan())
    sums = counter.start()
    for call in calls_of(world, seed=seed):
        counter.add(sums, call)
    return sums


def run(world, *, seed, plan=None, check_every=50):
    """Return the first move that is not to stay, or `stay` at the end."""
    plan = plan or Plan(most_minutes=1e9)
    counter = Counter(plan)
    sums = counter.start()
    for number, call in enumerate(calls_of(world, seed=seed)):
        counter.add(sums, call)
        if number % check_every == 0:
            move = decide(plan, sums, stage=0, stage_s=0.0)
            if move.action != "stay":
                return Outcome(move.action, move.guard, number + 1, sums.canary.calls)
    return Outcome("stay", "", world.calls, sums.canary.calls)
