"""Test batches that fail as a whole, or because memory is short."""

import numpy as np
import pytest
import torch

from inference.engine.batching import execution
from inference.engine.batching.entry import Entry
from inference.engine.wire.errors import EngineErrorCode
from inference.engine.wire.tensors import Tensor
from tests.inference.engine.fakes import POISON, FakeRunner


class SmallDevice(FakeRunner):
    """A runner with memory for a limited number of rows."""

    def __init__(self, most_rows):
        super().__init__()
        self.most_rows = most_rows

    def run(self, tensors):
        if len(tensors[0].data) > self.most_rows:
            self.batches.append(len(tensors[0].data))
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate")
        return super().run(tensors)


def entry(*values):
    data = np.array([[value, 0.0] for value in values], np.float32)
    return Entry(
        None,
        0,
        (Tensor("input", data),),
        nbytes=data.nbytes,
        arrived_at=0.0,
        deadline=1.0,
    )


def run(runner, *entries, **options):
    rows = sum(one.rows for one in entries)
    return execution.run(runner, entries, rows, **options)


def test_a_batch_that_does_not_fit_is_run_as_halves():
    runner = SmallDevice(2)

    outcome = run(runner, entry(1, 2, 3), entry(4), entry(5, 6, 7))

    assert outcome.error is None
    assert outcome.answer.tensors[0].data[:, 0].tolist() == [2, 4, 6, 8, 10, 12, 14]
    assert runner.batches == [7, 3, 1, 2, 4, 2, 2]
    assert outcome.halvings == 3


def test_one_request_that_does_not_fit_is_run_as_halves():
    runner = SmallDevice(1)

    outcome = run(runner, entry(1, 2, 3))

    assert outcome.answer.tensors[0].data[:, 0].tolist() == [2, 4, 6]


def test_a_whole_request_is_not_halved_where_memory_is_short():
    runner = SmallDevice(2)

    outcome = run(runner, entry(1, 2, 3), whole=True)

    assert outcome.error.code is EngineErrorCode.OVERLOADED
    assert runner.batches == [3]


def test_where_not_even_a_row_fits_callers_are_told_when_to_come_back():
    runner = SmallDevice(0)

    outcome = run(runner, entry(1, 2), entry(3, 4))

    assert outcome.error.code is EngineErrorCode.OVERLOADED
    assert outcome.error.retry_after_ms == 1000
    assert outcome.error.retryable
    assert not execution.may_halve(outcome)
    # Each half runs once, not every row.
    assert runner.batches == [4, 2, 1]


def test_each_half_of_a_batch_that_failed_may_run_apart():
    outcome = run(FakeRunner(), entry(1), entry(POISON))
    alone = run(FakeRunner(), entry(POISON))

    assert execution.may_halve(outcome)
    assert not execution.may_halve(alone)


def test_a_batch_on_a_failed_device_is_not_tried_again():
    runner = FakeRunner()
    runner.error = torch.AcceleratorError("device-side assert triggered")

    outcome = run(runner, entry(1), entry(2))

    assert not execution.may_halve(outcome)
    assert execution.is_fatal(outcome.cause)
    # Requests that only shared the batch may be sent again, to the new engine.
    assert outcome.error.code is EngineErrorCode.DEVICE_FAILED
    assert outcome.error.retryable
    assert outcome.error.retry_after_ms
    assert outcome.cause.__traceback__ is None


def test_a_request_that_brings_the_device_down_alone_is_to_blame():
    runner = FakeRunner()
    runner.error = torch.AcceleratorError("device-side assert triggered")

    outcome = run(runner, entry(1))

    assert outcome.error.code is EngineErrorCode.MODEL_ERROR


class Unspeakable(Exception):
    def __str__(self):
        raise ValueError


@pytest.mark.parametrize("error", [Unspeakable(), KeyboardInterrupt()])
def test_whatever_a_model_raises_is_an_outcome(error):
    runner = FakeRunner()
    runner.error = error

    outcome = run(runner, entry(1))

    assert outcome.error.code is EngineErrorCode.MODEL_ERROR
    assert type(error).__name__ in outcome.error.message
