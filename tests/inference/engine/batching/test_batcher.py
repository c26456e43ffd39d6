import asyncio
import random
import threading
import time

import numpy as np
import pytest
import structlog
from hypothesis import given, settings
from hypothesis import strategies as st

from inference.engine.batching.entry import Entry
from inference.engine.in_process import InProcessEngineClient
from inference.engine.wire.calls import PredictionCall
from inference.engine.wire.errors import EngineError, EngineErrorCode
from tests import torture
from tests.inference.engine.fakes import (
    KEY,
    POISON,
    FakeRunner,
    ManualClock,
    loaded_engine,
    rows,
    run,
    teach,
    until,
)


def test_a_batch_forms_while_the_device_is_busy(tmp_path):
    async def main():
        runner = FakeRunner()
        engine = await loaded_engine(tmp_path, runner, inline_ms=0)
        client = InProcessEngineClient(engine)
        runner.hold()

        first = asyncio.create_task(
            client.predict(PredictionCall(KEY, rows(1), timeout_s=5))
        )
        await until(runner.started.is_set)
        others = [
            asyncio.create_task(
                client.predict(PredictionCall(KEY, rows(value), timeout_s=5))
            )
            for value in (2, 3, 4)
        ]
        await until(lambda: engine.status().versions[0].queued_rows == 3)
        runner.release()
        answers = await asyncio.gather(first, *others)

        assert runner.batches == [1, 3]
        assert [float(a.tensors[0].data[0, 0]) for a in answers] == [2, 4, 6, 8]
        assert [a.batch_rows for a in answers] == [1, 3, 3, 3]

    run(main())


def test_all_that_arrives_in_one_turn_of_the_loop_is_one_batch(tmp_path):
    async def main():
        runner = FakeRunner()
        engine = await loaded_engine(tmp_path, runner)
        teach(engine)
        client = InProcessEngineClient(engine)

        await asyncio.gather(
            *(
                client.predict(PredictionCall(KEY, rows(value), timeout_s=5))
                for value in range(20)
            )
        )

        assert runner.batches == [20]

    run(main())


@pytest.mark.parametrize("inline_ms", [0, 1000])
@settings(max_examples=torture.examples(15), deadline=None)
@given(
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=30),
    seed=st.integers(0, 2**16),
)
def test_batching_never_mixes_answers(tmp_path_factory, inline_ms, sizes, seed):
    """Each value is a canary: no other row of any request has it."""
    random_ = random.Random(seed)
    home = tmp_path_factory.getbasetemp() / "canaries"

    async def main():
        runner = FakeRunner()
        engine = await loaded_engine(
            home, runner, inline_ms=inline_ms, max_batch_rows=32
        )
        client = InProcessEngineClient(engine)
        canary = iter(range(1, 10_000))
        calls = []
        for size in sizes:
            sent = rows(*(next(canary) for _ in range(size)))
            poisoned = random_.random() < 0.1
            if poisoned:
                sent[0].data[0, 0] = POISON
            task = asyncio.create_task(
                client.predict(
                    PredictionCall(
                        KEY,
                        sent,
                        timeout_s=20,
                        max_batch_rows=random_.choice([0, 0, 3]),
                    )
                )
            )
            calls.append((task, sent, poisoned))
            if random_.random() < 0.3:
                await asyncio.sleep(0)
            if random_.random() < 0.2:
                task.cancel()
        answers = await asyncio.gather(
            *(task for task, _, _ in calls), return_exceptions=True
        )

        for answer, (_, sent, poisoned) in zip(answers, calls, strict=True):
            if isinstance(answer, asyncio.CancelledError):
                continue
            if poisoned:
                assert isinstance(answer, EngineError)
                assert answer.code is EngineErrorCode.MODEL_ERROR
            else:
                assert np.array_equal(answer.tensors[0].data, sent[0].data * 2)
        assert engine.status().counters["unanswered"] == 0
        engine.close()

    run(main())


def test_only_the_poisonous_request_fails(tmp_path):
    async def main():
        engine = await loaded_engine(tmp_path, FakeRunner())
        teach(engine)
        client = InProcessEngineClient(engine)

        with structlog.testing.capture_logs() as logged:
            answers = await asyncio.gather(
                *(
                    client.predict(PredictionCall(KEY, rows(value), timeout_s=5))
                    for value in (1, 2, POISON, 4)
                ),
                return_exceptions=True,
            )

        [failed] = [one for one in logged if one["event"] == "batch_failed"]
        assert (failed["exception"], failed["message"]) == ("RuntimeError", "poison")
        assert failed["version"] == "doubler v1"
        assert "fakes.py" in failed["trace"].splitlines()[-2]
        assert isinstance(answers[2], EngineError)
        assert answers[2].code is EngineErrorCode.MODEL_ERROR
        assert [float(answers[i].tensors[0].data[0, 0]) for i in (0, 1, 3)] == [2, 4, 8]
        assert engine.status().counters["rows"] == 3

    run(main())


def test_outputs_of_other_rows_than_inputs_are_a_model_error(tmp_path):
    class Summing(FakeRunner):
        def run(self, tensors):
            (output,) = super().run(tensors)
            return (type(output)("output", output.data.sum(axis=0, keepdims=True)),)

    async def main():
        engine = await loaded_engine(tmp_path, Summing())
        teach(engine)

        with pytest.raises(EngineError) as caught:
            await InProcessEngineClient(engine).predict(
                PredictionCall(KEY, rows(1, 2), timeout_s=5)
            )

        assert caught.value.code is EngineErrorCode.MODEL_ERROR

    run(main())


def test_outputs_that_cannot_be_sent_are_a_model_error(tmp_path):
    class Complex(FakeRunner):
        def run(self, tensors):
            (output,) = super().run(tensors)
            return (type(output)("output", output.data.astype(np.complex64)),)

    async def main():
        engine = await loaded_engine(tmp_path, Complex())

        with pytest.raises(EngineError) as caught:
            await InProcessEngineClient(engine).predict(
                PredictionCall(KEY, rows(1, 2), timeout_s=5)
            )

        assert caught.value.code is EngineErrorCode.MODEL_ERROR

    run(main())


def test_a_full_queue_refuses_at_once_and_says_when_to_come_back(tmp_path):
    async def main():
        runner = FakeRunner()
        engine = await loaded_engine(tmp_path, runner, inline_ms=0, max_queue_rows=10)
        client = InProcessEngineClient(engine)
        runner.hold()
        first = asyncio.create_task(
            client.predict(PredictionCall(KEY, rows(1), timeout_s=5))
        )
        await until(runner.started.is_set)
        second = asyncio.create_task(
            client.predict(PredictionCall(KEY, rows(*range(10)), timeout_s=5))
        )
        await until(lambda: engine.status().versions[0].queued_rows == 10)

        with pytest.raises(EngineError) as caught:
            await client.predict(PredictionCall(KEY, rows(1), timeout_s=5))

        assert caught.value.code is EngineErrorCode.OVERLOADED
        assert caught.value.retry_after_ms >= 10
        runner.release()
        await asyncio.gather(first, second)

    run(main())


def test_the_dead_make_room_for_the_living(tmp_path):
    async def main():
        runner, clock = FakeRunner(), ManualClock()
        engine = await loaded_engine(
            tmp_path, runner, inline_ms=0, max_queue_rows=10, clock=clock
        )
        client = InProcessEngineClient(engine)
        runner.hold()
        first = asyncio.create_task(
            client.predict(PredictionCall(KEY, rows(1), timeout_s=50))
        )
        await until(runner.started.is_set)
        late = asyncio.create_task(
            client.predict(PredictionCall(KEY, rows(*range(10)), timeout_s=9))
        )
        await until(lambda: engine.status().versions[0].queued_rows == 10)
        clock.now += 10

        live = asyncio.create_task(
            client.predict(PredictionCall(KEY, rows(5), timeout_s=50))
        )
        with pytest.raises(EngineError) as caught:
            await late
        runner.release()

        assert caught.value.code is EngineErrorCode.DEADLINE_EXCEEDED
        assert float((await live).tensors[0].data[0, 0]) == 10
        await first

    run(main())


def test_late_and_left_requests_never_reach_the_device(tmp_path):
    async def main():
        runner, clock = FakeRunner(), ManualClock()
        engine = await loaded_engine(tmp_path, runner, inline_ms=0, clock=clock)
        teach(engine)
        client = InProcessEngineClient(engine)
        runner.hold()
        first = asyncio.create_task(
            client.predict(PredictionCall(KEY, rows(1), timeout_s=50))
        )
        await until(runner.started.is_set)
        late = asyncio.create_task(
            client.predict(PredictionCall(KEY, rows(2), timeout_s=9))
        )
        left = asyncio.create_task(
            client.predict(PredictionCall(KEY, rows(3, 3), timeout_s=50))
        )
        live = asyncio.create_task(
            client.predict(PredictionCall(KEY, rows(4, 4, 4), timeout_s=50))
        )
        await until(lambda: engine.status().versions[0].queued_rows == 6)

        clock.now += 10
        left.cancel()
        await asyncio.sleep(0)
        runner.release()
        await asyncio.gather(first, live)

        with pytest.raises(EngineError) as caught:
            await late
        assert caught.value.code is EngineErrorCode.DEADLINE_EXCEEDED
        assert runner.batches == [1, 3]

    run(main())


def test_a_request_larger_than_a_batch_is_answered_whole(tmp_path):
    async def main():
        runner = FakeRunner()
        engine = await loaded_engine(tmp_path, runner, max_batch_rows=4)
        teach(engine)

        answer = await InProcessEngineClient(engine).predict(
            PredictionCall(KEY, rows(*range(10)), timeout_s=5)
        )

        assert runner.batches == [4, 4, 2]
        assert answer.tensors[0].data[:, 0].tolist() == [2 * i for i in range(10)]

    run(main())


def test_out_of_memory_halves_the_batch(tmp_path):
    OutOfMemoryError = type("OutOfMemoryError", (RuntimeError,), {})

    class Small(FakeRunner):
        def run(self, tensors):
            if len(tensors[0].data) > 2:
                raise OutOfMemoryError
            return super().run(tensors)

    async def main():
        runner = Small()
        engine = await loaded_engine(tmp_path, runner)
        client = InProcessEngineClient(engine)

        answers = await asyncio.gather(
            *(
                client.predict(PredictionCall(KEY, rows(value), timeout_s=5))
                for value in range(4)
            ),
            client.predict(PredictionCall(KEY, rows(1, 2, 3), timeout_s=5)),
        )

        assert [float(a.tensors[0].data[0, 0]) for a in answers[:4]] == [0, 2, 4, 6]
        assert answers[4].tensors[0].data[:, 0].tolist() == [2, 4, 6]
        assert engine.status().counters["memory_halvings"] > 0

    run(main())


def test_a_model_that_exits_does_not_take_the_engine_down(tmp_path):
    class Exiting(FakeRunner):
        def run(self, tensors):
            raise SystemExit(3)

    async def main():
        engine = await loaded_engine(tmp_path, Exiting())

        with pytest.raises(EngineError) as caught:
            await InProcessEngineClient(engine).predict(
                PredictionCall(KEY, rows(1), timeout_s=5)
            )

        assert caught.value.code is EngineErrorCode.MODEL_ERROR

    run(main())


def test_a_failed_device_is_reported_once_answered(tmp_path):
    async def main():
        runner, fatal = FakeRunner(), []
        runner.error = RuntimeError("CUDA error: an illegal memory access")
        engine = await loaded_engine(
            tmp_path, runner, on_fatal=lambda: fatal.append(True)
        )

        with pytest.raises(EngineError):
            await InProcessEngineClient(engine).predict(
                PredictionCall(KEY, rows(1), timeout_s=5)
            )

        assert fatal == [True]

    run(main())


def test_a_batch_waits_for_company_while_the_device_is_idle(tmp_path):
    async def main():
        runner = FakeRunner()
        engine = await loaded_engine(tmp_path, runner, max_wait_ms=40)
        teach(engine)
        client = InProcessEngineClient(engine)

        first = asyncio.create_task(
            client.predict(PredictionCall(KEY, rows(1), timeout_s=5))
        )
        await asyncio.sleep(0.005)
        second = asyncio.create_task(
            client.predict(PredictionCall(KEY, rows(2), timeout_s=5))
        )
        await asyncio.gather(first, second)

        assert runner.batches == [2]

    run(main())


def test_a_full_batch_does_not_wait_for_more_company(tmp_path):
    async def main():
        runner = FakeRunner()
        engine = await loaded_engine(
            tmp_path, runner, max_wait_ms=60_000, max_batch_rows=3
        )
        teach(engine)
        client = InProcessEngineClient(engine)

        await asyncio.gather(
            *(
                client.predict(PredictionCall(KEY, rows(value), timeout_s=5))
                for value in range(3)
            )
        )

        assert runner.batches == [3]

    run(main())


class OverlappingRunner(FakeRunner):
    """A runner that counts how many batches are in `run` at the same time."""

    def __init__(self):
        super().__init__()
        self.inside = self.most_inside = 0
        self.lock = threading.Lock()

    def run(self, tensors):
        with self.lock:
            self.inside += 1
            self.most_inside = max(self.most_inside, self.inside)
        try:
            return super().run(tensors)
        finally:
            with self.lock:
                self.inside -= 1


@pytest.mark.parametrize("depth", [1, 2])
def test_as_many_batches_are_in_flight_as_the_lane_is_deep(tmp_path, depth):
    async def main():
        runner = OverlappingRunner()
        engine = await loaded_engine(tmp_path, runner, inline_ms=0, max_batch_rows=2)
        batcher = engine.batcher
        lane = batcher.open_lane(runner, depth=depth)
        client = LaneClient(batcher, lane)
        runner.hold()

        calls = [asyncio.create_task(client.predict(value)) for value in range(10)]
        await until(lambda: runner.inside == depth)
        await asyncio.sleep(0.02)
        runner.release()
        answers = await asyncio.gather(*calls)

        assert runner.most_inside == depth
        assert answers == [2 * value for value in range(10)]
        assert batcher.unanswered == 0

    run(main())


class Recorder:
    """A caller that keeps its first value."""

    def __init__(self, future):
        self.future = future

    def answered(self, entry, answer, start, queue_us):
        self.future.set_result(float(answer.tensors[0].data[start, 0]))

    def delivered(self):
        pass

    def failed(self, entry, error):
        self.future.set_exception(error)


class LaneClient:
    """Predict on a lane that the test opened itself."""

    def __init__(self, batcher, lane):
        self.batcher, self.lane = batcher, lane

    async def predict(self, value):
        future = asyncio.get_running_loop().create_future()
        self.batcher.submit(
            self.lane,
            Entry(
                Recorder(future),
                0,
                rows(value),
                nbytes=8,
                arrived_at=time.monotonic(),
                deadline=time.monotonic() + 10,
            ),
        )
        return await future


def test_a_retired_lane_answers_those_that_wait_and_is_freed_after_them(tmp_path):
    async def main():
        runner = FakeRunner()
        engine = await loaded_engine(tmp_path, runner, inline_ms=0)
        lane = engine.batcher.open_lane(runner)
        client = LaneClient(engine.batcher, lane)
        runner.hold()
        first = asyncio.create_task(client.predict(1))
        await until(runner.started.is_set)
        second = asyncio.create_task(client.predict(2))
        await until(lambda: lane.queued_rows == 1)

        engine.batcher.retire(lane, runner.unload)
        await asyncio.sleep(0.02)
        assert not runner.unloaded.is_set()
        runner.release()

        assert await asyncio.gather(first, second) == [2, 4]
        await until(runner.unloaded.is_set)

    run(main())
