import pytest

from inference.engine.batching.cost import CostModel, Pace


def test_nothing_is_known_at_first():
    assert CostModel().estimate(1) is None


def test_unseen_sizes_are_scaled_up_from_smaller_ones():
    cost = CostModel()
    cost.observe(1, 0.1)

    assert cost.estimate(1) == 0.1
    assert cost.estimate(4) == 0.4


def test_sizes_below_all_that_were_seen_cost_no_more():
    cost = CostModel()
    cost.observe(64, 0.5)

    assert cost.estimate(1) == 0.5


def test_the_estimate_follows_what_happens():
    cost = CostModel()
    cost.observe(1, 1.0)
    for _ in range(30):
        cost.observe(1, 0.1)

    assert 0.1 <= cost.estimate(1) < 0.11


def test_the_largest_batch_within_a_time_is_found_between_measured_sizes():
    cost = CostModel()
    assert cost.most_rows(0.05) == 1
    for rows in (1, 4, 16, 64):
        cost.observe(rows, 0.01 + 0.001 * rows)

    assert cost.most_rows(0.05) == 40
    assert cost.most_rows(0.001) == 1


def test_a_batch_grows_as_its_time_did_so_far():
    cost = CostModel()
    cost.observe(1, 0.001)
    assert cost.most_rows(0.05) == 50

    cost.observe(10, 0.003)
    assert cost.most_rows(0.05) == 166


def test_a_size_that_is_too_slow_is_cut_down():
    cost = CostModel()
    cost.observe(64, 3.2)

    assert cost.most_rows(0.05) == 1
    assert cost.most_rows(0.5) == 10


def test_a_row_more_is_tried_where_only_single_rows_were_measured():
    cost = CostModel()
    cost.observe(1, 0.04)
    assert cost.most_rows(0.05) == 2

    cost.observe(2, 0.041)
    assert cost.most_rows(0.05) == 4


def test_a_first_slow_batch_does_not_keep_its_size_from_being_tried_again():
    cost = CostModel()
    cost.observe(32, 0.001)
    cost.observe(64, 0.2)

    assert cost.most_rows(0.05) >= 64


def test_a_size_that_became_fast_again_is_tried_after_a_while():
    cost = CostModel()
    for _ in range(30):
        cost.observe(32, 0.001)
        cost.observe(64, 0.2)
    assert cost.most_rows(0.05) < 64

    tried = [cost.most_rows(0.05) for _ in range(300)]

    assert tried[-1] >= 64


def test_the_time_of_a_single_row_is_known_once_measured():
    cost = CostModel()
    cost.observe(2, 0.02)
    assert cost.single_row_s == 0

    cost.observe(1, 0.01)
    assert cost.single_row_s == 0.01


def test_the_pace_is_learnt_from_batches_that_left_others_waiting():
    pace = Pace()
    pace.observe(1, 0.5, saturated=False)
    assert pace.row_s == 0

    for _ in range(20):
        pace.observe(100, 0.5, saturated=True)
    assert pace.row_s == pytest.approx(0.005)

    # Small batches are slow for their size, but do not show the pace of a full queue.
    pace.observe(1, 0.1, saturated=False)
    assert pace.row_s == pytest.approx(0.005)


def test_a_pace_that_was_too_slow_is_corrected_without_a_full_queue():
    pace = Pace()
    pace.observe(1, 10.0, saturated=True)

    for _ in range(40):
        pace.observe(2, 0.01, saturated=False)

    assert pace.row_s < 0.02


def test_a_batch_that_was_preempted_hardly_changes_the_pace():
    pace = Pace()
    for _ in range(20):
        pace.observe(10, 0.05, saturated=True)

    pace.observe(10, 4.0, saturated=True)

    assert pace.row_s < 0.01


def test_a_first_full_queue_after_a_stall_is_judged_by_batches_before_it():
    pace = Pace()
    pace.observe(1, 0.006, saturated=False)
    pace.observe(1, 0.9, saturated=False)

    pace.observe(2, 1.2, saturated=True)

    assert pace.row_s < 0.02


def test_a_pace_that_slows_down_is_followed():
    pace = Pace()
    for _ in range(20):
        pace.observe(10, 0.05, saturated=True)

    for _ in range(20):
        pace.observe(10, 0.5, saturated=True)

    assert pace.row_s == pytest.approx(0.05, rel=0.1)
