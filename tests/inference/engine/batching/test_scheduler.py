import random

import pytest

from inference.engine.batching.scheduler import BatchScheduler


def play(turns, seconds, *, until_s, interactive=("a",), jobs=("b",)):
    """Keep both priorities waiting for a while; return the time that each got."""
    spent = {True: 0.0, False: 0.0}
    order = []
    while sum(spent.values()) < until_s:
        for lane in interactive:
            turns.wait(lane, job=False)
        for lane in jobs:
            turns.wait(lane, job=True)
        turn = turns.peek()
        turns.take(turn)
        took = seconds(turn)
        turns.ran(turn, took)
        spent[turn.job] += took
        order.append(turn.lane)
    return spent, order


def test_nobody_waits_at_first():
    turns = BatchScheduler(lambda lane: 0.0)

    assert not turns
    assert turns.peek() is None


def test_interactive_requests_go_before_jobs():
    turns = BatchScheduler(lambda lane: 0.0)
    turns.wait("job", job=True)
    turns.wait("interactive", job=False)

    assert turns.peek().lane == "interactive"


def test_a_job_goes_first_once_it_has_earned_its_time():
    _, order = play(BatchScheduler(lambda lane: 2.0), lambda turn: 1.0, until_s=60)

    # Two seconds at 6 % of the time.
    assert order.index("b") == 32


def test_jobs_alone_have_the_device_for_themselves():
    turns = BatchScheduler(lambda lane: 0.0)
    turns.wait("job", job=True)

    turn = turns.peek()

    assert (turn.lane, turn.job, turn.contended) == ("job", True, False)


@pytest.mark.parametrize("job_s", [0.001, 0.05, 2.0])
def test_jobs_get_their_share_of_the_time_and_no_more(job_s):
    random_ = random.Random(3)

    def seconds(turn):
        return (job_s if turn.job else 0.01) * random_.uniform(0.5, 1.5)

    spent, _ = play(
        BatchScheduler(lambda lane: job_s), seconds, until_s=500 * max(job_s, 0.05)
    )

    share = spent[True] / sum(spent.values())
    assert 0.05 <= share < 0.07


def test_a_job_that_calls_again_and_again_gets_no_more_than_its_share():
    """Between two calls of one job nothing waits, but its debt must stay."""
    turns = BatchScheduler(lambda lane: 0.2)
    spent = {True: 0.0, False: 0.0}
    for _ in range(20_000):
        turns.wait("interactive", job=False)
        turns.wait("job", job=True)
        turn = turns.peek()
        turns.take(turn)
        turns.ran(turn, 0.2 if turn.job else 0.01)
        spent[turn.job] += 0.2 if turn.job else 0.01
        if turn.job:
            # The job has no call waiting during the next interactive batch.
            turns.wait("interactive", job=False)
            following = turns.peek()
            turns.take(following)
            turns.ran(following, 0.01)
            spent[False] += 0.01

    assert spent[True] / sum(spent.values()) < 0.07


def test_lanes_of_one_priority_take_turns():
    _, order = play(
        BatchScheduler(lambda lane: 0.0),
        lambda turn: 1.0,
        until_s=6,
        interactive=("a", "b", "c"),
        jobs=(),
    )

    assert order == ["a", "b", "c", "a", "b", "c"]


def test_a_lane_that_is_gone_has_no_turn():
    turns = BatchScheduler(lambda lane: 0.0)
    turns.wait("a", job=False)
    turns.wait("a", job=True)

    turns.remove("a")

    assert not turns
