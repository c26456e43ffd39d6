"""Measure how an engine behaves under overload: `python -m benchmarks.overload`.

An open-loop generator raises the load on a real gateway and engine to 10 times the
capacity of a model with 5 ms a row, and then lowers it to half the capacity. For each
rate it prints how many requests were accepted, how quickly the rest was refused, and
how soon the engine has recovered.
"""

import argparse
import asyncio
import math
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from accounts.metering import spool
from benchmarks import data_plane
from benchmarks.data_plane import DataPlane
from benchmarks.open_loop import Answered, Generator

CAPACITY = 1 / data_plane.ROW_S
FACTORS = (0.5, 0.9, 1.2, 2.0, 5.0, 10.0)
# The engine has recovered once this many answers in a row are as fast as this.
RECOVERED_S = 0.5
RECOVERED_ANSWERS = 10


@dataclass(frozen=True, slots=True)
class Phase:
    """The results for one rate of requests."""

    requests_per_s: float
    accepted: int
    refused: int
    # Neither answered with 200 nor refused with 503.
    failed: int
    # Answers with 200 each second, from the first request to the last answer.
    goodput: float
    accepted_p50_s: float
    accepted_max_s: float
    refused_p50_s: float
    # The 95th percentile of each second, and of these the median.
    refused_p95_s: float
    # From the gateway's own record, without the time that the generator adds; "best" is
    # the second that other work on the machine disturbed least.
    refused_inside_p50_s: float
    refused_inside_best_p95_s: float
    without_retry_after: int
    # Rows that the engine ran in a second of its device's time.
    rows_per_busy_s: float


async def phase(
    plane: DataPlane, generator: Generator, requests_per_s: float, seconds: float
) -> tuple[Phase, list[Answered]]:
    before, began_at = plane.engine.status().counters, time.time()
    answers = await generator.send(requests_per_s, seconds)
    after = plane.engine.status().counters
    accepted = [one for one in answers if one.status == 200]
    refused = [one for one in answers if one.status == 503]
    took_s = max((one.sent_s + one.took_s for one in accepted), default=0.0) - min(
        (one.sent_s for one in accepted), default=0.0
    )
    outside = [(one.sent_s, one.took_s) for one in refused]
    inside = _refused_inside(plane, began_at)
    busy_s = (after["busy_us"] - before["busy_us"]) / 1e6
    made = Phase(
        requests_per_s=requests_per_s,
        accepted=len(accepted),
        refused=len(refused),
        failed=len(answers) - len(accepted) - len(refused),
        goodput=len(accepted) / took_s if took_s else 0.0,
        accepted_p50_s=_percentile([one.took_s for one in accepted], 50),
        accepted_max_s=_percentile([one.took_s for one in accepted], 100),
        refused_p50_s=_percentile([one.took_s for one in refused], 50),
        refused_p95_s=statistics.median(_by_second(outside, 95)),
        refused_inside_p50_s=_percentile([took_s for _, took_s in inside], 50),
        refused_inside_best_p95_s=min(_by_second(inside, 95)),
        without_retry_after=sum(not one.retry_after_s for one in refused),
        rows_per_busy_s=(after["rows"] - before["rows"]) / busy_s if busy_s else 0.0,
    )
    return made, answers


def recovered_after_s(flood: Sequence[Answered], after: Sequence[Answered]) -> float:
    """Return the seconds from a flood's last refusal until ten fast answers in a row.

    A single late answer after those is due to the machine: the queue is empty.
    """
    over_s = max(one.sent_s + one.took_s for one in flood if one.status == 503)
    sent_s: list[float] = []
    for one in sorted(after, key=lambda one: one.sent_s):
        soon = one.status == 200 and one.took_s <= RECOVERED_S
        sent_s = [*sent_s, one.sent_s] if soon else []
        if len(sent_s) == RECOVERED_ANSWERS:
            return max(0.0, sent_s[0] - over_s)
    return math.inf


def _refused_inside(plane: DataPlane, began_at: float) -> list[tuple[float, float]]:
    """Read from the spool when the gateway refused, and how long it took."""
    return [
        (event.at, event.total_us / 1e6)
        for path in plane.home.spool.glob(f"*{spool.SUFFIX}")
        for event, _ in spool.read_events(path)
        if event.status == 503 and event.at >= began_at
    ]


def _by_second(refusals: Iterable[tuple[float, float]], percent: int) -> list[float]:
    """Return the percentile of each second; [0] if nothing was refused."""
    seconds: dict[int, list[float]] = {}
    for at, took_s in refusals:
        seconds.setdefault(int(at), []).append(took_s)
    return [_percentile(took, percent) for took in seconds.values()] or [0.0]


def _percentile(values: Sequence[float], percent: int) -> float:
    if not values:
        return 0.0
    ordered = sorted(values)
    return ordered[min(len(ordered) * percent // 100, len(ordered) - 1)]


_HEADINGS = (
    f"{'asked/s':>8} {'goodput':>8} {'accepted':>9} {'refused':>8} {'failed':>7} "
    f"{'p50 ms':>8} {'refused p95 ms':>15} {'rows/busy s':>12}"
)


def _line(made: Phase) -> str:
    return (
        f"{made.requests_per_s:>8.0f} {made.goodput:>8.1f} {made.accepted:>9} "
        f"{made.refused:>8} {made.failed:>7} {made.accepted_p50_s * 1000:>8.0f} "
        f"{made.refused_p95_s * 1000:>15.1f} {made.rows_per_busy_s:>12.1f}"
    )


async def measure(plane: DataPlane, *, seconds: float) -> None:
    generator = Generator(
        plane.port, data_plane.PATH, data_plane.BODY, token=plane.key.token
    )
    async with generator:
        print(_HEADINGS)
        phases = []
        for factor in FACTORS:
            made, _ = await phase(plane, generator, CAPACITY * factor, seconds)
            phases.append(made)
            print(_line(made))
        # Back to back: the flood, and right after its last request half the capacity.
        sent = generator.sent + round(CAPACITY * 10 * seconds)
        flood = asyncio.create_task(generator.send(CAPACITY * 10, seconds))
        await generator.all_sent(sent)
        _, after = await phase(plane, generator, CAPACITY / 2, 8)
        flooded = await flood
    peak = max(one.goodput for one in phases)
    least = min(one.goodput for one in phases if one.requests_per_s > CAPACITY)
    print(f"\ngoodput over capacity: {least / peak:.1%} of its peak ({peak:.1f}/s)")
    print(f"recovered {recovered_after_s(flooded, after):.1f} s after the flood")


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.overload", description=__doc__
    )
    parser.add_argument("--seconds", type=float, default=10.0, help="for each rate")
    arguments = parser.parse_args()
    print(f"{platform.machine()}, {os.cpu_count()} cores; {CAPACITY:.0f} rows/s")
    with (
        tempfile.TemporaryDirectory() as folder,
        data_plane.running(Path(folder)) as plane,
    ):
        asyncio.run(measure(plane, seconds=arguments.seconds))
    return 0


if __name__ == "__main__":
    sys.exit(main())
