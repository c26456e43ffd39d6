import pytest

from inference.engine.batching import lane as lanes
from inference.engine.batching.lane import Lane
from inference.engine.batching.queue import QueueLimits, QueueRoom
from inference.engine.wire.errors import EngineErrorCode
from tests.inference.engine.batching.test_queue import entry
from tests.inference.engine.fakes import FakeRunner


@pytest.fixture
def lane():
    limits = QueueLimits(
        max_rows=100, max_bytes=10_000, max_batch_rows=10, max_batch_bytes=1000
    )
    return Lane(FakeRunner(), limits, QueueRoom(1000, 100_000))


def test_nothing_is_known_of_a_lane_at_first(lane):
    assert lane.idle
    assert lane.drain_s(job=False) == 0.0
    assert lane.piece_rows(0.05) == 1
    assert lane.job_price_s() == 0.0


def test_a_queue_takes_what_its_rows_take_at_the_measured_pace(lane):
    lane.pace.observe(10, 0.05, saturated=True)
    lane.interactive.append(entry(40))

    assert lane.drain_s(job=False) == pytest.approx(0.2)
    assert not lane.idle


def test_before_the_pace_is_known_single_batches_tell(lane):
    lane.interactive.append(entry(40))
    assert lane.drain_s(job=False) is None

    lane.cost.observe(10, 0.1)

    assert lane.drain_s(job=False) == pytest.approx(0.4)


def test_a_batch_of_jobs_costs_fifty_milliseconds_at_most(lane):
    for rows in (2, 4, 8):
        lane.cost.observe(rows, rows * 0.01)
    lane.jobs.append(entry(40, job=True))

    assert lane.piece_rows(0.05) == 5
    assert lane.job_price_s() == pytest.approx(0.04)


def test_batches_of_a_fast_version_are_not_cut(lane):
    lane.cost.observe(1, 0.001)

    assert lane.piece_rows(0.05) == 10


def test_a_batch_that_may_not_be_cut_costs_what_it_takes(lane):
    lane.joins = False
    lane.cost.observe(1, 0.01)
    lane.jobs.append(entry(32, job=True))

    assert lane.job_price_s() == pytest.approx(0.32)


def test_limits_may_change_under_what_waits(lane):
    lane.interactive.append(entry(8))

    lane.limit(lane.limits.__class__(100, 10_000, 4, 1000), max_wait_s=0.01)
    lane.interactive.append(entry(4))

    assert [one.rows for one in lane.interactive.take(0.0)[0]] == [4]
    assert lane.max_wait_s == 0.01


def test_a_refusal_says_when_to_come_back():
    limits = QueueLimits(1, 1, 1, 1)
    lane = Lane(FakeRunner(), limits, QueueRoom(1, 1))

    assert lanes.overloaded(lane, 2.5).retry_after_ms == 2500
    assert lanes.overloaded(lane, 0.0).retry_after_ms == 10
    assert lanes.overloaded(lane, 1e6).retry_after_ms == 60_000
    error = lanes.overloaded(lane, None)
    assert error.retry_after_ms == 1000
    assert error.code is EngineErrorCode.OVERLOADED
