"""Test what a full engine refuses, and the time after which it says to retry."""

import asyncio

import pytest

from inference.engine.in_process import InProcessEngineClient
from inference.engine.wire.calls import PredictionCall
from inference.engine.wire.errors import EngineError, EngineErrorCode
from inference.engine.wire.messages import VersionKey
from tests.inference.engine.fakes import (
    KEY,
    FakeRunner,
    ManualClock,
    SlowRunner,
    loaded_engine,
    ready,
    rows,
    run,
    to_load,
    until,
)

OTHER = VersionKey("other", 1)


class Overloaded:
    """An engine with a held device and a known pace of 5 ms a row."""

    async def start(self, home, **fields):
        self.clock = ManualClock()
        self.runner = SlowRunner(self.clock)
        fields = {"inline_ms": 0, "max_batch_rows": 10} | fields
        self.engine = await loaded_engine(home, self.runner, clock=self.clock, **fields)
        self.client = InProcessEngineClient(self.engine)
        self.calls = []
        # The engine learns the pace from batches with others waiting behind them.
        await asyncio.gather(*(self.predict(1) for _ in range(100)))
        self.runner.hold()
        self.calls.append(asyncio.create_task(self.predict(1)))
        await until(self.runner.started.is_set)
        return self

    async def predict(
        self,
        count,
        *,
        timeout_s=1000.0,
        key=KEY,
        priority="interactive",
        customer_id=1,
    ):
        return await self.client.predict(
            PredictionCall(
                key,
                rows(*range(count)),
                timeout_s=timeout_s,
                priority=priority,
                customer_id=customer_id,
            )
        )

    async def queue(self, *counts, **fields):
        before = self.engine.batcher.room.rows
        self.calls += [
            asyncio.create_task(self.predict(count, **fields)) for count in counts
        ]
        await until(lambda: self.engine.batcher.room.rows == before + sum(counts))

    async def refusal(self, count=1, **fields):
        with pytest.raises(EngineError) as caught:
            await self.predict(count, **fields)
        assert caught.value.code is EngineErrorCode.OVERLOADED
        return caught.value

    async def end(self):
        self.runner.release()
        await asyncio.gather(*self.calls)
        assert self.engine.status().counters["unanswered"] == 0


def test_retry_after_is_the_queue_at_the_measured_pace(tmp_path):
    async def main():
        full = await Overloaded().start(tmp_path, max_queue_rows=400)
        await full.queue(*[2] * 100)

        error = await full.refusal()

        assert error.retry_after_ms == pytest.approx(1000, rel=0.05)
        # A caller that retries then finds the queue empty.
        said_at = full.clock.now
        await full.end()
        assert full.clock.now - said_at == pytest.approx(
            error.retry_after_ms / 1000, rel=0.05
        )
        await full.predict(1)

    run(main())


def test_retry_after_knows_the_versions_that_share_the_device(tmp_path):
    async def main():
        full = await Overloaded().start(tmp_path, max_queue_rows=200)
        full.engine.load(to_load(OTHER))
        await ready(full.engine, OTHER)
        full.runner.release()
        await asyncio.gather(*(full.predict(1, key=OTHER) for _ in range(100)))
        full.runner.hold()
        full.calls.append(asyncio.create_task(full.predict(1)))
        await until(full.runner.started.is_set)
        await full.queue(100)
        await full.queue(50, key=OTHER)

        error = await full.refusal()

        # Its own 100 rows, and 50 of the other customer in between.
        assert error.retry_after_ms == pytest.approx(750, rel=0.05)
        await full.end()

    run(main())


def test_an_engine_that_measured_nothing_says_a_second(tmp_path):
    async def main():
        runner = FakeRunner()
        engine = await loaded_engine(tmp_path, runner, inline_ms=0, max_queue_rows=1)
        client = InProcessEngineClient(engine)
        runner.hold()
        calls = [
            asyncio.create_task(
                client.predict(PredictionCall(KEY, rows(1), timeout_s=5))
            )
        ]
        await until(runner.started.is_set)
        calls.append(
            asyncio.create_task(
                client.predict(PredictionCall(KEY, rows(1), timeout_s=5))
            )
        )
        await until(lambda: engine.batcher.room.rows == 1)

        with pytest.raises(EngineError) as caught:
            await client.predict(PredictionCall(KEY, rows(1), timeout_s=5))
        runner.release()
        await asyncio.gather(*calls)

        assert caught.value.retry_after_ms == 1000

    run(main())


def test_the_queue_is_bounded_in_time(tmp_path):
    """After a flood its last requests are answered soon, and then new ones."""

    async def main():
        full = await Overloaded().start(tmp_path, max_queue_ms=1000)
        await full.queue(*[1] * 100)

        error = await full.refusal()

        assert error.of_customer
        assert full.engine.status().counters["refused_queue_time"] == 1
        await full.queue(*[1] * 50, customer_id=2)
        assert (await full.refusal(customer_id=2)).of_customer
        await full.queue(1, customer_id=3)
        await full.queue(1, priority="job")
        await full.end()

    run(main())


def test_what_piled_up_behind_a_stall_is_not_refused_because_of_it(tmp_path):
    async def main():
        full = await Overloaded().start(tmp_path)
        await full.queue(*[1] * 12)
        # The batch of ten rows, between the held one and others behind it.
        full.runner.stalls = [0.0, 3.0]
        full.runner.release()
        await asyncio.gather(*full.calls)

        await asyncio.gather(*(full.predict(1) for _ in range(120)))

        assert full.engine.status().counters["refused"] == 0

    run(main())


def test_what_cannot_be_done_before_its_deadline_is_refused_at_once(tmp_path):
    async def main():
        full = await Overloaded().start(tmp_path)
        await full.queue(*[1] * 100)

        error = await full.refusal(timeout_s=0.4)
        assert not error.of_customer
        await full.queue(1, timeout_s=0.8)
        # Its turn comes much earlier.
        await full.queue(1, timeout_s=0.4, customer_id=2)

        await full.end()

    run(main())


def test_who_asks_once_waits_for_no_flood(tmp_path):
    """Beside 1 s of another customer's work, it waits only for the running batch."""

    async def main():
        full = await Overloaded().start(tmp_path)
        has_it = []
        run_batch = full.runner.run

        def noted(tensors):
            has_it.append(777.0 in tensors[0].data)
            return run_batch(tensors)

        await full.queue(*[1] * 200)
        full.runner.run = noted
        once = asyncio.create_task(
            full.client.predict(
                PredictionCall(KEY, rows(777.0), timeout_s=1000, customer_id=2)
            )
        )
        await until(lambda: full.engine.batcher.room.rows == 201)

        await full.end()
        await once

        assert len(has_it) == 21
        assert has_it.index(True) == 0

    run(main())


def test_a_call_of_more_rows_than_may_wait_keeps_nobody_else_out(tmp_path):
    async def main():
        full = await Overloaded().start(tmp_path, max_queue_rows=200)
        before = len(full.runner.batches)
        # 15 s of work.
        await full.queue(3000)

        assert (await full.refusal()).of_customer
        await full.queue(1, customer_id=2)
        await full.queue(1, customer_id=3)

        await full.end()
        assert full.runner.batches[before : before + 2] == [2, 10]

    run(main())


def test_a_burst_is_not_judged_by_the_pace_of_single_rows(tmp_path):
    async def main():
        clock = ManualClock()

        class Fixed(SlowRunner):
            def run(self, tensors):
                outputs = FakeRunner.run(self, tensors)
                self.clock.now += 0.1  # whatever the number of rows
                return outputs

        engine = await loaded_engine(tmp_path, Fixed(clock), inline_ms=0, clock=clock)
        client = InProcessEngineClient(engine)
        for _ in range(5):
            await client.predict(PredictionCall(KEY, rows(1), timeout_s=5))

        await asyncio.gather(
            *(
                client.predict(PredictionCall(KEY, rows(1), timeout_s=5))
                for _ in range(250)
            )
        )

        assert engine.status().counters["refused"] == 0

    run(main())


@pytest.mark.parametrize(
    ("bounds", "counter"),
    [
        ({"max_queue_rows": 40}, "refused_queue_rows"),
        ({"max_queue_bytes": 40 * 8}, "refused_queue_bytes"),
        ({"max_engine_queue_rows": 40}, "refused_engine_room"),
        ({"max_engine_queue_bytes": 40 * 8}, "refused_engine_room"),
    ],
)
def test_every_bound_refuses_and_is_counted(tmp_path, bounds, counter):
    async def main():
        clock = ManualClock()
        runner = SlowRunner(clock)
        engine = await loaded_engine(
            tmp_path, runner, clock=clock, inline_ms=0, **bounds
        )
        client = InProcessEngineClient(engine)
        runner.hold()
        calls = [
            asyncio.create_task(
                client.predict(PredictionCall(KEY, rows(1), timeout_s=50))
            )
        ]
        await until(runner.started.is_set)
        calls += [
            asyncio.create_task(
                client.predict(PredictionCall(KEY, rows(1), timeout_s=50))
            )
            for _ in range(20)
        ]
        await until(lambda: engine.batcher.room.rows == 20)

        with pytest.raises(EngineError) as caught:
            await client.predict(PredictionCall(KEY, rows(1), timeout_s=50))

        assert caught.value.code is EngineErrorCode.OVERLOADED
        counters = engine.status().counters
        assert counters["refused"] == counters[counter] == 1
        assert caught.value.of_customer
        # A caller that leaves frees its room for others at once.
        left = calls.pop()
        left.cancel()
        await asyncio.gather(left, return_exceptions=True)
        calls.append(
            asyncio.create_task(
                client.predict(PredictionCall(KEY, rows(1), timeout_s=50))
            )
        )
        await until(lambda: engine.batcher.room.rows == 20)
        runner.release()
        await asyncio.gather(*calls)
        assert engine.batcher.room.rows == engine.batcher.room.nbytes == 0

    run(main())
