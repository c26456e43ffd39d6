"""Test with simulated time that a fast lane does not wait for slow ones."""

import random

import pytest

from inference.engine.batching.scheduler import BatchScheduler

FAST_S = 0.0001
PIECE_S = 0.05


def alone(fast_s, think_s, *, until_s, random_):
    return simulate({"fast": fast_s}, think_s, until_s=until_s, random_=random_)


def simulate(costs, think_s, *, until_s, random_):
    """Let every lane but "fast" always wait; return the fast lane's waiting times.

    Its caller asks again some time after each answer.
    """
    turns = BatchScheduler(lambda lane: 0.0)
    now, asked_at, waits = 0.0, 0.0, []
    used = dict.fromkeys(costs, 0.0)
    while now < until_s:
        for lane in costs:
            if lane != "fast":
                turns.wait(lane, job=False)
        if asked_at <= now:
            turns.wait("fast", job=False)
        turn = turns.peek()
        if turn is None:
            now = asked_at
            continue
        turns.take(turn)
        took = costs[turn.lane] * random_.uniform(0.8, 1.0)
        now += took
        used[turn.lane] += took
        turns.ran(turn, took)
        if turn.lane == "fast":
            waits.append(now - asked_at)
            asked_at = now + think_s * random_.uniform(0.5, 1.5)
    return waits, used


def p99(values):
    return sorted(values)[int(len(values) * 0.99)]


@pytest.mark.parametrize("slow", [1, 3, 20])
@pytest.mark.parametrize("think_s", [0.0, 0.001, 0.2])
@pytest.mark.parametrize("seed", range(2))
def test_a_fast_lane_waits_for_one_piece_of_a_slow_one(slow, think_s, seed):
    random_ = random.Random(seed)
    without, _ = alone(FAST_S, think_s, until_s=0.5 + 100 * think_s, random_=random_)
    costs = {f"slow {number}": PIECE_S for number in range(slow)} | {"fast": FAST_S}

    until_s = 60 if think_s else 12
    waits, used = simulate(costs, think_s, until_s=until_s, random_=random_)

    assert len(waits) > 100
    assert p99(waits) <= 2 * p99(without) + PIECE_S
    # Who always waits gets as much time as the others.
    others = [seconds for lane, seconds in used.items() if lane != "fast"]
    assert max(others) - min(others) <= 3 * PIECE_S
    if not think_s:
        assert abs(used["fast"] - others[0]) <= 3 * PIECE_S


def test_lanes_that_always_wait_use_the_same_time():
    costs = {"a": 0.0001, "b": 0.003, "c": 0.05, "d": 0.3}
    costs["fast"] = 0.001

    _, used = simulate(costs, 0.0, until_s=100, random_=random.Random(1))

    assert max(used.values()) == pytest.approx(min(used.values()), rel=0.03)


def test_who_was_away_has_saved_no_time():
    turns = BatchScheduler(lambda lane: 0.0)

    def serve(count, *lanes):
        order = []
        for _ in range(count):
            for lane in lanes:
                turns.wait(lane, job=False)
            turn = turns.peek()
            turns.take(turn)
            turns.ran(turn, 1.0)
            order.append(turn.lane)
        return order

    serve(1, "b")
    turns.wait("b", job=False)
    serve(50, "a")
    order = serve(20, "a", "b")

    assert 9 <= order.count("a") <= 11


def test_a_turn_in_which_nothing_ran_costs_nothing():
    turns = BatchScheduler(lambda lane: 0.0)

    def turn(*lanes, ran):
        for lane in lanes:
            turns.wait(lane, job=False)
        found = turns.peek()
        turns.take(found)
        if ran:
            turns.ran(found, 1.0)
        else:
            turns.give_back(found)
        return found.lane

    assert [turn("a", ran=True), turn("b", ran=True)] == ["a", "b"]
    for _ in range(5):
        turn("a", ran=False)  # its callers left

    assert [turn("a", "b", ran=True) for _ in range(4)] == ["a", "b", "a", "b"]


def test_lanes_with_short_batches_go_in_the_order_in_which_they_came():
    turns = BatchScheduler(lambda lane: 0.0)
    costs = {"large": 0.0003, "small": 0.0001}

    order = []
    for _ in range(100):
        for lane in costs:
            turns.wait(lane, job=False)
        for _ in costs:
            turn = turns.peek()
            turns.take(turn)
            turns.ran(turn, costs[turn.lane])
            order.append(turn.lane)

    # They come anew after each round, so none owes the other time for long.
    assert order.count("large") == order.count("small") == 100
    assert order[:6] == ["large", "small"] * 3
