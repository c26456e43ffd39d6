import pytest

from registry.rules import rollout_plans as plans
from registry.rules.rollout_plans import Plan


def stages(*weights):
    return [{"weight_percent": weight} for weight in weights]


def test_the_plan_of_somebody_who_sets_nothing_is_good():
    assert plans.check(Plan()) == []
    assert plans.parse({}) == Plan()


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"stages": []}, "at least one stage"),
        ({"stages": stages(5, 25, 25)}, "greater weight than the one before"),
        ({"stages": stages(50, 5)}, "greater weight than the one before"),
        ({"stages": stages(0)}, "1 to 99 percent"),
        ({"stages": stages(100)}, "1 to 99 percent"),
        ({"stages": stages(*range(1, 22))}, "at most 20 stages"),
        ({"stages": stages("5")}, "Expected `int`"),
        ({"stages": [{"weight_percent": 5, "least_calls": 0}]}, "at least one call"),
        ({"most_minutes": 5}, "more minutes than `most_minutes`"),
        ({"most_error_ratio": 0.5}, "`most_error_ratio` is a number from 1 to 10"),
        (
            {"safe_slow_ratio": 1.1},
            "`safe_slow_ratio` is greater than `most_slow_ratio`",
        ),
        ({"safe_error_percent": 0}, "`safe_error_percent` is a number"),
        ({"most_drift_percent": 0}, "`most_drift_percent` is a number from 1 to 90"),
        ({"on_drift": "promote"}, "Invalid enum value"),
        ({"undecided": "promote"}, "Invalid enum value"),
        ({"gards": 1}, "unknown field `gards`"),
        ([], "Expected `object`"),
    ],
)
def test_a_wrong_plan_is_refused_in_words(value, words):
    with pytest.raises(ValueError, match=words):
        plans.parse(value)
