import asyncio

import pytest

from inference.engine.in_process import InProcessEngineClient
from inference.engine.wire.calls import PredictionCall
from inference.engine.wire.errors import EngineError, EngineErrorCode
from tests.inference.engine.fakes import (
    KEY,
    FakeRunner,
    ManualClock,
    SlowRunner,
    loaded_engine,
    rows,
    run,
    until,
)


def queued(engine):
    return engine.status().versions[0].queued_rows


def test_interactive_requests_overtake_jobs_that_came_before(tmp_path):
    async def main():
        runner = FakeRunner()
        engine = await loaded_engine(tmp_path, runner, inline_ms=0)
        client = InProcessEngineClient(engine)
        runner.hold()
        calls = [
            asyncio.create_task(
                client.predict(PredictionCall(KEY, rows(0), timeout_s=5))
            )
        ]
        await until(runner.started.is_set)

        calls += [
            asyncio.create_task(
                client.predict(
                    PredictionCall(KEY, rows(1, 1, 1), timeout_s=5, priority="job")
                )
            ),
            asyncio.create_task(
                client.predict(PredictionCall(KEY, rows(2, 2), timeout_s=5))
            ),
        ]
        await until(lambda: queued(engine) == 5)
        runner.release()
        await asyncio.gather(*calls)

        assert runner.batches == [1, 2, 3]
        assert engine.status().counters["job_rows"] == 3

    run(main())


def test_jobs_are_not_starved(tmp_path):
    """With more interactive requests than the device can handle, jobs get 5 %."""

    async def main():
        clock = ManualClock()
        runner = SlowRunner(clock)
        engine = await loaded_engine(
            tmp_path, runner, inline_ms=0, clock=clock, max_batch_rows=8
        )
        client = InProcessEngineClient(engine)
        ended = clock.now + 20
        done = {"interactive": 0, "job": 0}

        async def caller(priority):
            while clock.now < ended:
                await client.predict(
                    PredictionCall(KEY, rows(1, 1), timeout_s=1000, priority=priority)
                )
                done[priority] += 2

        await asyncio.gather(
            *(caller("interactive") for _ in range(12)), *(caller("job") for _ in "123")
        )

        share = done["job"] / (done["job"] + done["interactive"])
        assert 0.045 < share < 0.10

    run(main())


def test_jobs_that_fill_their_queue_leave_room_for_others(tmp_path):
    async def main():
        runner = FakeRunner()
        engine = await loaded_engine(tmp_path, runner, inline_ms=0, max_queue_rows=10)
        client = InProcessEngineClient(engine)
        runner.hold()
        calls = [
            asyncio.create_task(
                client.predict(PredictionCall(KEY, rows(0), timeout_s=5))
            )
        ]
        await until(runner.started.is_set)
        calls.append(
            asyncio.create_task(
                client.predict(
                    PredictionCall(KEY, rows(*range(10)), timeout_s=5, priority="job")
                )
            )
        )
        await until(lambda: queued(engine) == 10)

        with pytest.raises(EngineError) as caught:
            await client.predict(
                PredictionCall(KEY, rows(1), timeout_s=5, priority="job")
            )
        calls.append(
            asyncio.create_task(
                client.predict(PredictionCall(KEY, rows(1), timeout_s=5))
            )
        )
        await until(lambda: queued(engine) == 11)
        runner.release()
        await asyncio.gather(*calls)

        assert caught.value.code is EngineErrorCode.OVERLOADED

    run(main())


def test_batches_of_jobs_are_short_where_rows_are_slow(tmp_path):
    """An interactive request that comes meanwhile does not wait for a full batch."""

    async def main():
        clock = ManualClock()
        runner = SlowRunner(clock)
        engine = await loaded_engine(tmp_path, runner, inline_ms=0, clock=clock)
        client = InProcessEngineClient(engine)
        # From here on the batcher knows that a row takes 5 ms.
        await asyncio.gather(
            *(
                client.predict(PredictionCall(KEY, rows(1), timeout_s=100))
                for _ in range(300)
            )
        )
        runner.batches.clear()

        await asyncio.gather(
            *(
                client.predict(
                    PredictionCall(KEY, rows(1), timeout_s=100, priority="job")
                )
                for _ in range(100)
            )
        )

        # Rows of 5 ms fill 50 ms, except for rounding.
        assert max(runner.batches) in (9, 10)

    run(main())
