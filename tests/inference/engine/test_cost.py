from inference.engine.cost import CostModel


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
