"""Test a real gateway and engine with ten times the load that they can answer.

The model takes 25 ms a row, so ten times its capacity is only 400 requests a second.
The generator shares the processors, and if it lags, it measures itself.
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
            # Half of the capacity, right after the last call of the flood.
            _, after = await overload.phase(plane, generator, CAPACITY / 2, 6)
            flooded, answers = await flood
        return peak, flooded, answers, after

    peak, flooded, answers, after = asyncio.run(main())

    assert peak.failed == flooded.failed == 0
    # Most of the flood, even if the generator on a busy machine was late.
    assert flooded.refused > 2 * flooded.accepted
    # Useful answers, compared with the peak and with what the device can do.
    best = max(peak.goodput, flooded.rows_per_busy_s)
    during = [one for one in answers if one.status == 200]
    ended = max(one.sent_s + one.took_s for one in during)
    goodput = len(during) / (ended - min(one.sent_s for one in during))
    assert goodput >= 0.8 * best
    assert flooded.without_retry_after == 0
    # A refusal that waited would take as long as an accepted call. The gateway measures
    # it: a generator that waits for a processor would measure itself.
    assert flooded.refused_inside_p50_s < flooded.accepted_p50_s / 4
    assert flooded.refused_inside_best_p95_s < flooded.accepted_p50_s / 10
    assert flooded.refused_p50_s < flooded.accepted_p50_s / 2
    assert overload.recovered_after_s(answers, after) < 5
