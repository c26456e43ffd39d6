"""Simulate rollouts and count false decisions: `python -m benchmarks.rollouts`.

First canaries that are no worse than their default, over 10,000 calls each, in nine
worlds: how many are ever rolled back, with an upper 95 % limit (Clopper-Pearson). Then
canaries that are worse: how many calls to the canary until it is rolled back, or
paused for its predictions. The code that decides is the product's own
(`inference/rollouts/`); only calls are simulated.
"""

import argparse
import multiprocessing
import statistics
from dataclasses import replace
from functools import partial

from scipy.stats import beta

from tests.inference.rollouts.simulated import Outcome, World, run

_NO_WORSE = {
    "as usual": World(),
    "bursts of one key": World(bursts=True),
    "a common outage": World(outage=(0.3, 0.5)),
    "one broken key": World(broken_key=True),
    "5 % of the calls": World(weight=5),
    "sticky keys": World(sticky=True, keys=400),
    "sticky, one broken": World(sticky=True, broken_key=True),
    "sticky keys, 5 %": World(sticky=True, keys=2_000, weight=5),
    "10 % drift": World(drift=0.1),
}
_WORSE = {
    "1.5x errors": World(error_ratio=1.5),
    "2x errors": World(error_ratio=2),
    "5x errors": World(error_ratio=5),
    "20x errors": World(error_ratio=20),
    "+20 % latency": World(slowness=1.2),
    "+100 % latency": World(slowness=2),
    "20x, sticky keys": World(error_ratio=20, sticky=True, keys=1000),
    "3 % 10x as slow": World(tail=0.03),
    "20 % drift": World(drift=0.2),
    "40 % drift": World(drift=0.4),
}
_WEIGHTS = (5, 25, 50)
_FOUND_BY = ("errors", "slow", "drift")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rollouts", type=int, default=10_000, help="A/A, in all")
    parser.add_argument("--detected", type=int, default=100, help="of each bad canary")
    arguments = parser.parse_args()
    each = arguments.rollouts // len(_NO_WORSE)
    with multiprocessing.Pool() as pool:
        rolled_back = paused = 0
        print(f"Canaries that are no worse, {each} rollouts of 10,000 calls each:")
        for title, world in _NO_WORSE.items():
            outcomes = pool.map(partial(_run, world), range(each), chunksize=10)
            back = sum(it.action == "roll_back" for it in outcomes)
            stopped = sum(it.action == "pause" for it in outcomes)
            rolled_back, paused = rolled_back + back, paused + stopped
            print(f"  {title:<20} rolled back {back}, paused {stopped}", flush=True)
        total = each * len(_NO_WORSE)
        print(
            f"  in all: {rolled_back} of {total} rolled back, at most "
            f"{_upper(rolled_back, total):.2%} (95 % limit); {paused} paused"
        )
        print("Canaries that are worse, median calls to the canary until it is found:")
        for title, world in _WORSE.items():
            found = []
            for weight in _WEIGHTS:
                calls = 10_000 * 100 // weight
                bad = replace(world, weight=weight, calls=calls)
                outcomes = pool.map(partial(_run, bad), range(arguments.detected))
                found.append(f"at {weight} %: {_median(outcomes)}")
            print(f"  {title:<20} {'; '.join(found)}", flush=True)


def _run(world: World, seed: int) -> Outcome:
    return run(world, seed=seed)


def _upper(hits: int, of: int) -> float:
    return float(beta.ppf(0.95, hits + 1, of - hits)) if hits < of else 1.0


def _median(outcomes: list[Outcome]) -> str:
    calls = [it.canary_calls for it in outcomes if it.guard in _FOUND_BY]
    undecided = len(outcomes) - len(calls)
    if undecided > len(outcomes) / 2:
        return f"undecided after 10,000 ({undecided} of {len(outcomes)})"
    longest = [*calls, *[10_000] * undecided]
    return f"{statistics.median(longest):,.0f}"


if __name__ == "__main__":
    main()
