"""Test that a request always gets the answer that it would get alone."""

import asyncio
import random
import threading

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inference.engine.batching import execution
from inference.engine.engine import EngineCore
from inference.engine.in_process import InProcessEngineClient
from inference.engine.runners.runner import Loaded
from inference.engine.wire.calls import PredictionCall
from inference.engine.wire.errors import EngineError, EngineErrorCode
from inference.engine.wire.tensors import Tensor
from tests import torture
from tests.inference.engine import fakes
from tests.inference.engine.fakes import KEY, MATRIX, ready, run, to_load

OutOfMemoryError = type("OutOfMemoryError", (RuntimeError,), {})


def alone(data):
    """Return the answer to one row alone: two outputs of different shapes."""
    return data * np.float32(2), data.sum(axis=1) + np.float32(0.5)


class EchoRunner:
    """A runner that answers each row from that row only; sometimes memory is short."""

    torch_function = None

    def __init__(self, seed):
        self.random = random.Random(seed)
        self.lock = threading.Lock()

    def warm_up(self, tensors):
        pass

    def run(self, tensors):
        data = tensors[0].data
        with self.lock:
            too_large = len(data) > 1 and self.random.random() < 0.2
        if too_large:
            raise OutOfMemoryError
        doubled, sums = alone(data)
        return Tensor("doubled", doubled), Tensor("sums", sums)

    def unload(self):
        pass


class OffByOneRunner(EchoRunner):
    """A broken runner: in a batch, each row gets its neighbour's answer."""

    def run(self, tensors):
        return tuple(
            Tensor(tensor.name, np.roll(tensor.data, 1, axis=0))
            for tensor in super().run(tensors)
        )


step = st.fixed_dictionaries(
    {
        "rows": st.integers(1, 40),
        "priority": st.sampled_from(["interactive", "interactive", "job"]),
        "max_batch_rows": st.sampled_from([0, 0, 3]),
        "timeout_s": st.sampled_from([20.0, 20.0, 20.0, 0.001]),
        "then": st.sampled_from(["", "", "", "yield", "cancel", "reload", "wait"]),
    }
)


async def play(home, steps, make_runner, *, depth=1, inline_ms=0.0):
    """Carry out the steps; return how many answers were right and wrong."""
    engine = EngineCore(
        fakes.settings(home, inline_ms=inline_ms, max_batch_rows=32),
        load=lambda version, device: Loaded(make_runner(), MATRIX, depth),
    )
    engine.load(to_load())
    await ready(engine)
    client = InProcessEngineClient(engine)
    canaries = iter(range(1, 1_000_000))
    calls = []
    for number, one in enumerate(steps):
        # Each value is a canary: no other row of any request has it.
        sent = fakes.rows(*(next(canaries) for _ in range(one["rows"])))
        call = asyncio.create_task(
            client.predict(
                PredictionCall(
                    KEY,
                    sent,
                    timeout_s=one["timeout_s"],
                    max_batch_rows=one["max_batch_rows"],
                    priority=one["priority"],
                )
            )
        )
        calls.append((call, sent[0].data))
        if one["then"] == "yield":
            await asyncio.sleep(0)
        elif one["then"] == "wait":
            await asyncio.sleep(0.002)
        elif one["then"] == "cancel":
            await asyncio.sleep(0)
            call.cancel()
        elif one["then"] == "reload":
            engine.load(to_load(flavors=("fake", str(number))))
    answers = await asyncio.gather(*(call for call, _ in calls), return_exceptions=True)
    right = wrong = 0
    for answer, (_, data) in zip(answers, calls, strict=True):
        if isinstance(answer, EngineError):
            assert answer.code in (
                EngineErrorCode.DEADLINE_EXCEEDED,
                EngineErrorCode.OVERLOADED,
            )
        elif not isinstance(answer, asyncio.CancelledError):
            expected = alone(data)
            same = all(
                np.array_equal(tensor.data, one)
                for tensor, one in zip(answer.tensors, expected, strict=True)
            )
            right, wrong = right + same, wrong + (not same)
    assert engine.status().counters["unanswered"] == 0
    assert engine.batcher.room.rows == engine.batcher.room.nbytes == 0
    engine.close()
    return right, wrong


@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize("inline_ms", [0, 1000])
@settings(max_examples=torture.examples(8), deadline=None)
@given(steps=st.lists(step, min_size=1, max_size=30), seed=st.integers(0, 2**16))
def test_every_answer_is_the_one_it_would_get_alone(
    tmp_path_factory, inline_ms, depth, steps, seed
):
    home = tmp_path_factory.getbasetemp() / "mixed"

    _, wrong = run(
        play(home, steps, lambda: EchoRunner(seed), inline_ms=inline_ms, depth=depth)
    )

    assert wrong == 0


STEPS = [
    {
        "rows": 1 + number % 3,
        "priority": "interactive",
        "max_batch_rows": 0,
        "timeout_s": 20.0,
        "then": "",
    }
    for number in range(20)
]


def test_answers_of_the_right_engine_pass(tmp_path):
    assert run(play(tmp_path, STEPS, lambda: EchoRunner(1))) == (20, 0)


def test_a_runner_that_is_off_by_one_is_caught(tmp_path):
    _, wrong = run(play(tmp_path, STEPS, lambda: OffByOneRunner(1)))

    assert wrong > 0


def test_an_engine_that_hands_answers_out_in_another_order_is_caught(
    tmp_path, monkeypatch
):
    right_order = execution.run

    def mutant(runner, entries, *options):
        outcome = right_order(runner, entries, *options)
        return msgspec.structs.replace(outcome, entries=outcome.entries[::-1])

    monkeypatch.setattr(execution, "run", mutant)

    _, wrong = run(play(tmp_path, STEPS, lambda: EchoRunner(1)))

    assert wrong > 0
