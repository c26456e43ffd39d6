"""Ten times the engine's capacity: a real gateway, a real engine, an open loop.

The model takes 25 ms a row, so that ten times too much is 400 requests a second: the
generator shares the machine's processors, and one that lags measures itself.
`python -m benchmarks.overload` sends 2,000 a second to a model of 5 ms a row.
"""

import asyncio

import pytest

from benchmarks import data_plane, overload
from benchmarks.open_loop import Generator

pytestmark = pytest.mark.processes

ROW_S = 0.025
CAPACITY = 1 / ROW_S
FACTOR = 10


@pytest.fixture(scope="module")
def plane(tmp_path_factory):
    with data_plane.running(tmp_path_factory.mktemp("plane"), row_s=ROW_S) as running:
        yield running


def generator_for(plane):
    return Generator(
        plane.port, data_plane.PATH, data_plane.BODY, token=plane.key.token
    )


def test_a_flood_costs_no_throughput_and_is_over_soon(plane):
    async def main():
        async with generator_for(plane) as generator:
            peak, _ = await overload.phase(plane, generator, CAPACITY * 1.2, 2)
            sent = generator.sent + round(CAPACITY * FACTOR * 4)
            flood = asyncio.create_task(
                overload.phase(plane, generator, CAPACITY * FACTOR, 4)
            )
            await generator.all_sent(sent)
            # Half of what it can do, right after the last of the flood was sent.
            _, after = await overload.phase(plane, generator, CAPACITY / 2, 6)
            flooded, answers = await flood
        return peak, flooded, answers, after

    peak, flooded, answers, after = asyncio.run(main())

    assert peak.failed == flooded.failed == 0
    # Most of it, however late a busy machine's generator was with the rest.
    assert flooded.refused > 2 * flooded.accepted
    # What it does for callers, against the best that it did and that its device can.
    best = max(peak.goodput, flooded.rows_per_busy_s)
    during = [one for one in answers if one.status == 200]
    ended = max(one.sent_s + one.took_s for one in during)
    goodput = len(during) / (ended - min(one.sent_s for one in during))
    assert goodput >= 0.8 * best
    assert flooded.without_retry_after == 0
    # Refusals that waited would take as long as what was accepted. By the gateway's own
    # record: a generator without a processor measures itself.
    assert flooded.refused_inside_p50_s < flooded.accepted_p50_s / 4
    assert flooded.refused_inside_best_p95_s < flooded.accepted_p50_s / 10
    assert flooded.refused_p50_s < flooded.accepted_p50_s / 2
    assert overload.recovered_after_s(answers, after) < 5
