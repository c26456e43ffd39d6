"""Simulate whole rollouts; `python -m benchmarks.rollouts` runs ten thousand."""

import statistics

import pytest

from tests.inference.rollouts.simulated import World, run
from tests.torture import examples

RUNS = examples(40)


@pytest.mark.parametrize(
    "world",
    [
        World(calls=3000),
        World(calls=3000, bursts=True),
        World(calls=3000, outage=(0.3, 0.5)),
        World(calls=3000, broken_key=True),
        World(calls=3000, drift=0.1),
        World(calls=3000, sticky=True, keys=300),
        World(calls=3000, sticky=True, broken_key=True),
    ],
    ids=[
        "as usual",
        "bursts",
        "a common outage",
        "one broken key",
        "10 % drift",
        "sticky keys",
        "sticky keys, the heaviest broken",
    ],
)
def test_a_canary_that_is_no_worse_is_left_alone(world):
    outcomes = [run(world, seed=seed) for seed in range(RUNS)]

    # The bound is 1 % for rollbacks and 0.1 % for the dealing, on average.
    assert sum(outcome.action != "stay" for outcome in outcomes) <= 1 + RUNS // 50


@pytest.mark.parametrize(
    ("world", "most_calls"),
    [
        (World(error_ratio=5, weight=5, calls=60_000), 1000),
        (World(error_ratio=5, weight=25, calls=20_000), 1000),
        (World(error_ratio=20, weight=25, calls=20_000), 100),
        (World(slowness=2, weight=25, calls=20_000), 300),
        (World(error_ratio=20, calls=20_000, sticky=True, keys=1000), 500),
    ],
    ids=[
        "5x errors at 5 %",
        "5x errors at 25 %",
        "20x errors",
        "twice as slow",
        "20x errors, sticky keys",
    ],
)
def test_a_bad_canary_is_rolled_back_soon(world, most_calls):
    outcomes = [run(world, seed=seed) for seed in range(RUNS // 4)]

    assert {outcome.action for outcome in outcomes} == {"roll_back"}
    assert statistics.median(o.canary_calls for o in outcomes) <= most_calls


def test_a_canary_that_predicts_otherwise_is_paused_soon():
    world = World(drift=0.4, weight=25, calls=20_000)

    outcomes = [run(world, seed=seed) for seed in range(RUNS // 4)]

    assert {outcome.guard for outcome in outcomes} == {"drift"}
    assert statistics.median(o.canary_calls for o in outcomes) <= 400
