"""Test batches that fail as a whole, or because memory is short."""

import numpy as np
import torch

from inference.engine.batching import execution
from inference.engine.batching.queue import Entry
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


def test_a_batch_that_does_not_fit_is_run_as_halves():
    runner = SmallDevice(2)
    entries = [entry(1, 2, 3), entry(4), entry(5, 6, 7)]

    [outcome] = execution.run_apart(runner, entries, max_batch_rows=100)

    assert outcome.error is None
    assert outcome.answer.tensors[0].data[:, 0].tolist() == [2, 4, 6, 8, 10, 12, 14]
    assert runner.batches == [7, 3, 1, 2, 4, 2, 2]
    assert outcome.halvings == 3


def test_one_request_that_does_not_fit_is_run_as_halves():
    runner = SmallDevice(1)

    outcome = execution.run(runner, [entry(1, 2, 3)], max_batch_rows=100)

    assert outcome.answer.tensors[0].data[:, 0].tolist() == [2, 4, 6]


def test_where_not_even_a_row_fits_callers_are_told_when_to_come_back():
    runner = SmallDevice(0)

    [outcome] = execution.run_apart(
        runner, [entry(1, 2), entry(3, 4)], max_batch_rows=100
    )

    assert outcome.error.code is EngineErrorCode.OVERLOADED
    assert outcome.error.retry_after_ms == 1000
    assert outcome.error.retryable
    # Each half runs once, not every row.
    assert runner.batches == [4, 2, 1]


def test_a_poisonous_request_fails_alone():
    runner = FakeRunner()
    entries = [entry(1), entry(POISON), entry(3), entry(4)]

    outcomes = execution.run_apart(runner, entries, max_batch_rows=100)

    failed = [each for outcome in outcomes if outcome.error for each in outcome.entries]
    assert failed == [entries[1]]


def test_a_batch_on_a_failed_device_is_not_tried_again():
    runner = FakeRunner()
    runner.error = torch.AcceleratorError("device-side assert triggered")

    [outcome] = execution.run_apart(runner, [entry(1), entry(2)], max_batch_rows=100)

    assert runner.batches == [2]
    assert execution.is_fatal(outcome.cause)
    # Requests that only shared the batch may be sent again, to the new engine.
    assert outcome.error.code is EngineErrorCode.DEVICE_FAILED
    assert outcome.error.retryable
    assert outcome.error.retry_after_ms
    assert outcome.cause.__traceback__ is None


def test_a_request_that_brings_the_device_down_alone_is_to_blame():
    runner = FakeRunner()
    runner.error = torch.AcceleratorError("device-side assert triggered")

    [outcome] = execution.run_apart(runner, [entry(1)], max_batch_rows=100)

    assert outcome.error.code is EngineErrorCode.MODEL_ERROR
