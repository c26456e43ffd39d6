"""Measure what a shadow costs callers: `python -m benchmarks.shadows`.

One gateway and one engine serve a model that takes no time, to calls at a steady rate.
Rounds with a shadow of 100 % and rounds without one take turns, so that a busy machine
slows both alike. It prints the latencies of both, the ratio of their 99th percentiles,
the gateway's processor time, and what came of the copies. Copies of a model that takes
long compete for its device only if both versions share an engine process; there they
have the priority of jobs.
"""

import argparse
import asyncio
import math
import os
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.data_plane import BODY, PATH, DataPlane, running
from benchmarks.open_loop import Generator
from inference.snapshot.contents import Shadow

_CONNECTIONS = 32
# Until gateways have read a snapshot, and the round before has ended.
SETTLE_S = 1.5


@dataclass(frozen=True, slots=True)
class Round:
    took_s: list[float]
    # The gateway's processor time.
    used_s: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=float, default=300.0, help="calls per second")
    parser.add_argument("--seconds", type=float, default=6.0, help="of each round")
    parser.add_argument("--rounds", type=int, default=5, help="with and without")
    given = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        running(Path(folder), row_s=0.0) as plane,
    ):
        plane.load(2, row_s=0.0)
        found = asyncio.run(
            _measure(plane, given.rate, seconds=given.seconds, rounds=given.rounds)
        )
        copies = _copies(plane)
    without, with_shadow = found[False], found[True]
    print(f"{given.rate:g} calls/s, {os.cpu_count()} processors")
    for title, rounds in (("without", without), ("with a shadow", with_shadow)):
        p50, p99 = (
            statistics.median(percentile(it.took_s, share) for it in rounds) * 1e3
            for share in (0.5, 0.99)
        )
        used_us = statistics.median(it.used_s / len(it.took_s) for it in rounds) * 1e6
        print(
            f"{title}: p50 {p50:.2f} ms, p99 {p99:.2f} ms, {used_us:.0f} µs of the "
            "gateway's processor for a call (medians of rounds)"
        )
    ratios = [
        percentile(one.took_s, 0.99) / percentile(other.took_s, 0.99)
        for one, other in zip(with_shadow, without, strict=True)
    ]
    shown = ", ".join(f"{ratio:.2f}" for ratio in ratios)
    print(f"p99 with / without: median {statistics.median(ratios):.3f} of {shown}")
    print(f"copies: {copies}")


def percentile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


async def _measure(
    plane: DataPlane, rate: float, *, seconds: float, rounds: int
) -> dict[bool, list[Round]]:
    found: dict[bool, list[Round]] = {False: [], True: []}
    async with Generator(plane.port, PATH, BODY, token=plane.key.token) as generator:
        await generator.connect(_CONNECTIONS)
        await generator.send(rate, seconds)
        for number in range(rounds):
            # Which comes first changes, so that none profits from its place.
            for is_on in (False, True) if number % 2 else (True, False):
                plane.publish(1, 2, shadow=Shadow(2, 100) if is_on else None)
                await asyncio.sleep(SETTLE_S)
                before_s = plane.processor_s()
                answers = await generator.send(rate, seconds)
                if any(answer.status != 200 for answer in answers):
                    raise RuntimeError("calls failed")
                # The copies of the last calls, too.
                await asyncio.sleep(SETTLE_S)
                used_s = plane.processor_s() - before_s
                found[is_on].append(Round([it.took_s for it in answers], used_s))
    return found


def _copies(plane: DataPlane) -> str:
    counts = []
    for labels, number in plane.metric("modelyard_shadow_calls_total").items():
        outcome = labels.partition('outcome="')[2].partition('"')[0]
        counts.append(f"{number:g} {outcome}")
    return ", ".join(counts) or "none"


if __name__ == "__main__":
    main()
