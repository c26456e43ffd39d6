"""Test a customer who floods a model, beside a customer who calls now and then.

Rows take 2 ms, and the flood is four times the engine's capacity. `-s` prints how long
both wait.
"""

import asyncio
import json
import statistics

import pytest

from benchmarks import data_plane
from benchmarks.open_loop import Generator

pytestmark = pytest.mark.processes

ROW_S = 0.002
ROWS = 20
FLOOD_S = 6.0
REQUESTS_PER_S = 4 / (ROW_S * ROWS)


def test_a_flood_keeps_no_other_customer_waiting(tmp_path):
    body = json.dumps({"instances": [{"x": 1.5}] * ROWS}).encode()

    async def main(plane):
        def generator(key, sent):
            return Generator(plane.port, data_plane.PATH, sent, token=key.token)

        async with (
            generator(plane.key, body) as flood,
            generator(plane.other_key, data_plane.BODY) as once,
        ):
            flooding = asyncio.create_task(flood.send(REQUESTS_PER_S, FLOOD_S))
            while len([one for one in flood.answers if one.status == 503]) < 20:
                await asyncio.sleep(0.05)
            asked = await once.send(2, FLOOD_S / 2)
            assert not flooding.done()
            return await flooding, asked

    with data_plane.running(tmp_path, row_s=ROW_S) as plane:
        flooded, asked = asyncio.run(main(plane))
        counters = plane.engine.status().counters

    accepted_s = [one.took_s for one in flooded if one.status == 200]
    asked_s = [one.took_s for one in asked if one.status == 200]
    refused = [one for one in flooded if one.status == 503]
    print(
        f"\nflood: {len(accepted_s)} answered, {len(refused)} refused, median "
        f"{statistics.median(accepted_s):.2f} s; once: {len(asked_s)} of {len(asked)} "
        f"answered, median {statistics.median(asked_s or [0]):.2f} s"
    )
    assert [one.status for one in asked] == [200] * len(asked)
    # They wait for the running batch and their own, while the flood fills eight.
    assert statistics.median(asked_s) < statistics.median(accepted_s) / 1.5
    assert "Your share of this model's queue" in refused[-1].body
    assert counters["refused_queue_time"] == len(refused)
