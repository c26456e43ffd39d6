"""Test requests that are too long for one batch: cut, interleaved, dropped."""

import asyncio

import numpy as np
import pytest

from inference.engine.engine import EngineCore
from inference.engine.in_process import InProcessEngineClient
from inference.engine.runners.runner import Loaded
from inference.engine.wire.calls import PredictionCall
from inference.engine.wire.errors import EngineError, EngineErrorCode
from inference.engine.wire.messages import Batching, VersionKey
from tests.inference.engine import fakes
from tests.inference.engine.fakes import (
    KEY,
    MATRIX,
    POISON,
    FakeRunner,
    ManualClock,
    SlowRunner,
    loaded_engine,
    ready,
    rows,
    run,
    teach,
    to_load,
    until,
)

OTHER = VersionKey("other", 1)


class Stepped(SlowRunner):
    """A slow runner that writes each batch into a list, and calls back after it."""

    def __init__(self, clock, name, order, *, row_s):
        super().__init__(clock, row_s=row_s)
        self.name, self.order = name, order
        self.after = lambda: None

    def run(self, tensors):
        outputs = super().run(tensors)
        self.order.append((self.name, len(tensors[0].data)))
        self.after()
        return outputs


async def shared(home, slow_row_s=0.01, **fields):
    """Return an engine with a slow and a fast version, both known to it."""
    clock, order = ManualClock(), []
    runners = {
        KEY: Stepped(clock, "slow", order, row_s=slow_row_s),
        OTHER: Stepped(clock, "fast", order, row_s=0.0001),
    }
    engine = EngineCore(
        fakes.settings(home, inline_ms=0, **fields),
        load=lambda version, device: Loaded(runners[version.key], MATRIX),
        clock=clock,
    )
    for key in runners:
        engine.load(to_load(key))
        await ready(engine, key)
    return engine, InProcessEngineClient(engine), runners, order


def call(client, key, *values, **fields):
    fields = {"timeout_s": 1000.0} | fields
    return asyncio.create_task(
        client.predict(PredictionCall(key, rows(*values), **fields))
    )


def test_a_slow_request_runs_in_pieces_and_others_go_between_them(tmp_path):
    async def main():
        engine, client, runners, order = await shared(tmp_path)
        teach(engine, 0.01)
        teach(engine, 0.0001, OTHER)
        runners[KEY].hold()
        slow = call(client, KEY, *range(256))
        await until(runners[KEY].started.is_set)
        fast = call(client, OTHER, 1)
        await until(lambda: engine.batcher.room.rows > 250)
        runners[KEY].release()

        answer = await slow

        assert (await fast).tensors[0].data[0, 0] == 2
        assert order[1] == ("fast", 1)
        assert max(count for name, count in order if name == "slow") == 5
        assert sum(count for name, count in order if name == "slow") == 256
        assert answer.tensors[0].data[:, 0].tolist() == [2 * n for n in range(256)]
        assert answer.compute_us == pytest.approx(2_560_000, rel=0.01)
        assert engine.status().counters["pieces"] >= 51

    run(main())


def test_an_unknown_version_begins_with_one_row_and_grows(tmp_path):
    async def main():
        _, client, _, order = await shared(tmp_path)

        await call(client, OTHER, *range(256))

        sizes = [count for _, count in order]
        assert sizes[0] == 1
        assert sum(sizes) == 256
        assert len(sizes) == 2

    run(main())


def test_a_version_with_a_fixed_cost_does_not_stay_at_single_rows(tmp_path):
    class Fixed(Stepped):
        def run(self, tensors):
            self.clock.now += 0.03
            return super().run(tensors)

    async def main():
        engine, client, runners, order = await shared(tmp_path)
        lane = engine.versions.by_key[KEY].lane
        lane.runner = Fixed(runners[KEY].clock, "slow", order, row_s=0.0005)

        await call(client, KEY, *range(200))

        assert order[-2][1] in range(35, 42)  # 30 ms and 0.5 ms a row

    run(main())


def test_nobody_computes_for_a_caller_that_left_between_pieces(tmp_path):
    async def main():
        engine, client, runners, order = await shared(tmp_path)
        teach(engine, 0.01)
        runners[KEY].hold()
        slow = call(client, KEY, *range(256))
        await until(runners[KEY].started.is_set)

        slow.cancel()
        await asyncio.sleep(0)
        runners[KEY].release()
        await call(client, OTHER, 1)
        await until(lambda: not engine.batcher.unanswered)

        assert order == [("slow", 5), ("fast", 1)]
        counters = engine.status().counters
        assert counters["dropped_between_pieces"] == 1
        assert engine.batcher.room.rows == engine.batcher.room.nbytes == 0

    run(main())


def test_a_late_request_is_told_between_pieces(tmp_path):
    async def main():
        engine, client, runners, order = await shared(tmp_path)
        teach(engine, 0.01)
        runners[KEY].hold()
        # The second waits behind the first; both are late after the second piece.
        slow = call(client, KEY, *range(256), timeout_s=50)
        await until(runners[KEY].started.is_set)
        second = call(client, KEY, 1, timeout_s=50)
        live = call(client, KEY, 7, 8)
        await until(lambda: engine.batcher.room.rows == 251 + 3)
        runners[KEY].after = lambda: setattr(
            runners[KEY].clock, "now", runners[KEY].clock.now + 60
        )
        runners[KEY].release()

        answers = await asyncio.gather(slow, second, live, return_exceptions=True)

        for late in answers[:2]:
            assert isinstance(late, EngineError)
            assert late.code is EngineErrorCode.DEADLINE_EXCEEDED
        assert answers[2].tensors[0].data[:, 0].tolist() == [14, 16]
        assert [count for _, count in order] == [5, 2]
        assert engine.status().counters["dropped_between_pieces"] == 1

    run(main())


def test_a_version_alone_has_longer_pieces(tmp_path):
    async def main():
        clock = ManualClock()
        runner = SlowRunner(clock, row_s=0.01)
        engine = await loaded_engine(tmp_path, runner, inline_ms=0, clock=clock)
        teach(engine, 0.01)

        await call(InProcessEngineClient(engine), KEY, *range(120))

        assert runner.batches == [50, 50, 20]

    run(main())


def test_a_large_request_of_which_a_part_fails_fails_whole(tmp_path):
    async def main():
        engine, client, runners, _ = await shared(tmp_path)
        teach(engine, 0.01)

        failing = call(client, KEY, *range(6), POISON, *range(100))
        with pytest.raises(EngineError) as caught:
            await failing

        assert caught.value.code is EngineErrorCode.MODEL_ERROR
        assert runners[KEY].batches == [5, 5]
        assert engine.batcher.unanswered == engine.batcher.room.rows == 0

    run(main())


def test_the_halves_of_a_failed_batch_let_others_go_between_them(tmp_path):
    async def main():
        engine, client, runners, order = await shared(tmp_path)
        teach(engine, 0.001)
        teach(engine, 0.0001, OTHER)
        runners[KEY].hold()
        first = call(client, KEY, 0)
        await until(runners[KEY].started.is_set)
        calls = [call(client, KEY, value) for value in (1, 2, POISON, 4)]
        others = call(client, OTHER, 1)
        await until(lambda: engine.batcher.room.rows == 5)
        runners[KEY].release()

        answers = await asyncio.gather(first, others, *calls, return_exceptions=True)

        assert [isinstance(one, EngineError) for one in answers] == [
            *[False] * 4,
            True,
            False,
        ]
        assert runners[KEY].batches == [1, 4, 2, 2, 1, 1]
        # Of those that failed only the slow runner itself knows.
        assert order == [
            ("slow", 1),
            ("fast", 1),
            ("slow", 2),
            ("slow", 1),
        ]

    run(main())


def test_requests_of_a_version_that_joins_none_are_batches_of_their_own_whole(tmp_path):
    async def main():
        engine, client, runners, _ = await shared(tmp_path, max_batch_rows=4)
        teach(engine, 0.01)
        runners[KEY].hold()
        first = call(client, KEY, 0)
        await until(runners[KEY].started.is_set)

        engine.load(to_load(KEY, batching=Batching(join=False)))
        calls = [call(client, KEY, *range(count)) for count in (1, 20, 2)]
        await until(lambda: engine.batcher.room.rows == 23)
        runners[KEY].release()
        await asyncio.gather(first, *calls)

        assert runners[KEY].batches == [1, 1, 20, 2]
        [status] = [one for one in engine.status().versions if one.key == KEY]
        assert status.apart == "its batching says so"

    run(main())


@pytest.mark.parametrize(
    ("join", "batches", "apart"),
    [
        (None, [1, 1, 1], "sorts rows"),
        (True, [3], ""),
        (False, [1, 1, 1], "sorts rows"),
    ],
)
def test_what_was_found_at_load_holds_unless_the_batching_says_otherwise(
    tmp_path, join, batches, apart
):
    async def main():
        runner = FakeRunner()
        engine = EngineCore(
            fakes.settings(tmp_path),
            load=lambda version, device: Loaded(runner, MATRIX, apart="sorts rows"),
        )
        engine.load(to_load(batching=Batching(join=join)))
        await ready(engine)
        teach(engine)
        client = InProcessEngineClient(engine)

        answers = await asyncio.gather(*(call(client, KEY, n) for n in range(3)))

        assert runner.batches == batches
        assert [float(one.tensors[0].data[0, 0]) for one in answers] == [0, 2, 4]
        assert engine.status().versions[0].apart == apart

    run(main())


def test_a_part_with_outputs_that_cannot_be_joined_is_a_model_error(tmp_path):
    class Odd(FakeRunner):
        def run(self, tensors):
            (output,) = super().run(tensors)
            if len(self.batches) == 1:
                return (output,)
            return (type(output)("output", np.zeros((len(output.data), 2), "M8[ns]")),)

    async def main():
        engine = await loaded_engine(tmp_path, Odd(), max_batch_rows=2)

        with pytest.raises(EngineError) as caught:
            await call(InProcessEngineClient(engine), KEY, *range(4))

        assert caught.value.code is EngineErrorCode.MODEL_ERROR
        assert engine.batcher.unanswered == 0

    run(main())
