"""Measure what a canary costs callers: `python -m benchmarks.canaries`.

One gateway and one engine serve two versions of a model that takes no time. Rounds in
which one of them is the canary and rounds without one take turns, so that a busy
machine slows both alike. Every call of the first kind is dealt, and its event carries
what a rollout counts. It prints the requests per second and the gateway's processor
time for a call, and their ratios. Two versions are two batches, which is part of the
cost: with `--percent 1` there is hardly any second batch.
"""

import argparse
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks import load
from benchmarks.data_plane import BODY, PATH, DataPlane, running
from benchmarks.shadows import SETTLE_S


@dataclass(frozen=True, slots=True)
class Round:
    requests_per_s: float
    # Of the gateway, for each call.
    used_us: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--percent", type=int, default=10, help="of the canary")
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--seconds", type=int, default=5, help="of each round")
    parser.add_argument("--rounds", type=int, default=8, help="with and without")
    given = parser.parse_args()
    found: dict[int, list[Round]] = {0: [], given.percent: []}
    with (
        tempfile.TemporaryDirectory() as folder,
        running(Path(folder), row_s=0.0) as plane,
    ):
        plane.load(2, row_s=0.0)
        for number in range(given.rounds):
            # Which comes first changes, so that none profits from its place.
            for percent in sorted(found, reverse=bool(number % 2)):
                plane.publish(1, 2, canary_percent=percent)
                time.sleep(SETTLE_S)
                made = _measure(plane, given.connections, seconds=given.seconds)
                found[percent].append(made)
    for percent, rounds in found.items():
        rate = statistics.median(it.requests_per_s for it in rounds)
        used = statistics.median(it.used_us for it in rounds)
        print(f"canary of {percent} %: {rate:,.0f} calls/s, {used:.1f} µs of a call")
    pairs = list(zip(found[given.percent], found[0], strict=True))
    rates = sorted(one.requests_per_s / other.requests_per_s for one, other in pairs)
    uses = sorted(one.used_us / other.used_us for one, other in pairs)
    for title, ratios in (("calls/s", rates), ("processor time", uses)):
        print(
            f"{title}, with / without: median {statistics.median(ratios):.3f} "
            f"({ratios[0]:.2f} to {ratios[-1]:.2f})"
        )


def _measure(plane: DataPlane, connections: int, *, seconds: int) -> Round:
    headers = {"Authorization": f"Bearer {plane.key.token}"}
    target = load.Target(f"http://127.0.0.1:{plane.port}{PATH}", BODY, headers)
    before_s, calls_before = plane.processor_s(), _answered(plane)
    measured = load.run(target, connections=connections, seconds=seconds)
    used_s = plane.processor_s() - before_s
    calls = _answered(plane) - calls_before
    if measured.failures:
        raise RuntimeError(f"{measured.failures} calls failed")
    return Round(measured.requests_per_s, used_s / calls * 1e6)


def _answered(plane: DataPlane) -> float:
    return sum(plane.metric("modelyard_requests_total").values())


if __name__ == "__main__":
    main()
