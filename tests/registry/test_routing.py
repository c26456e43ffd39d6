import random
import string
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.routing import Deal, Variant, chances_by_weight, choose_pinned

weights = st.integers(min_value=0, max_value=100)
keys = st.text(max_size=40)


def variants_of(canary_weight: int) -> tuple[Variant, ...]:
    return (
        Variant(version=2, role="default", weight_percent=100 - canary_weight),
        Variant(version=3, role="canary", weight_percent=canary_weight),
    )


@given(canary_weight=weights, blocks=st.integers(min_value=0, max_value=3))
def test_every_block_of_100_holds_each_share_exactly(canary_weight, blocks):
    deal = Deal(variants_of(canary_weight))
    for _ in range(blocks * 100):
        deal.next()

    counts = Counter(deal.next()[0].version for _ in range(100))

    assert counts[2] == 100 - canary_weight
    assert counts[3] == canary_weight


def test_a_caller_that_alternates_its_inputs_meets_the_canary_with_both():
    deal = Deal(variants_of(50))

    inputs = Counter(
        number % 2 for number in range(2000) if deal.next()[0].role == "canary"
    )

    # Each is a sum of 1,000 turns with a standard deviation below 16.
    assert min(inputs.values()) > 400


def test_no_two_gateways_deal_in_the_same_order():
    deals = [Deal(variants_of(50)) for _ in range(2)]

    orders = [[deal.next()[0].version for _ in range(100)] for deal in deals]

    assert orders[0] != orders[1]


@given(canary_weight=weights, seed=st.integers())
def test_the_chance_is_the_canarys_part_of_the_turns_left(canary_weight, seed):
    deal = Deal(variants_of(canary_weight), shuffle=random.Random(seed).shuffle)
    canaries, turns = canary_weight, 100

    for _ in range(100):
        variant, chance, others = deal.next()
        assert (chance, others) == (canaries / turns, ())
        canaries -= variant.role == "canary"
        turns -= 1


def several(*canary_weights: int) -> tuple[Variant, ...]:
    rest = 100 - sum(canary_weights)
    return (
        Variant(version=1, role="default", weight_percent=rest),
        *(
            Variant(version=number, role="canary", weight_percent=weight)
            for number, weight in enumerate(canary_weights, start=2)
        ),
    )


few_weights = st.lists(st.integers(0, 24), min_size=2, max_size=4)


@given(canary_weights=few_weights, seed=st.integers())
def test_each_canary_is_compared_with_the_default_alone(canary_weights, seed):
    variants = several(*canary_weights)
    deal = Deal(variants, shuffle=random.Random(seed).shuffle)

    for _ in range(2):
        left = {each.version: each.weight_percent for each in variants}
        for _ in range(100):
            variant, chance, others = deal.next()
            chances = {
                version: left[version] / (left[version] + left[1])
                for version in left
                if version != 1 and left[version] + left[1]
            }
            if variant.role == "canary":
                assert (chance, others) == (chances[variant.version], ())
            else:
                assert [(2, chance), *others] == list(chances.items())
            left[variant.version] -= 1
        assert set(left.values()) == {0}


@given(canary_weights=few_weights)
def test_all_canaries_get_their_shares_of_pinned_callers(canary_weights):
    variants = several(*canary_weights)

    counts = Counter(
        choose_pinned(variants, salt="m", sticky_key=f"caller-{n}").version
        for n in range(2000)
    )

    for each in variants:
        # More than six standard deviations.
        assert abs(counts[each.version] - 20 * each.weight_percent) < 140


@given(canary_weights=few_weights)
def test_a_pinned_caller_had_the_chances_of_the_weights(canary_weights):
    variants = several(*canary_weights)
    rest = variants[0].weight_percent
    expected = {
        number: weight / (weight + rest)
        for number, weight in enumerate(canary_weights, start=2)
    }

    first, others = chances_by_weight(variants, version=1)

    assert [(2, first), *others] == list(expected.items())
    for number, chance in expected.items():
        assert chances_by_weight(variants, version=number) == (chance, ())


def test_a_single_variant_gets_everything():
    only = Variant(version=7, role="default", weight_percent=100)
    deal = Deal((only,))

    assert {deal.next() for _ in range(120)} == {(only, 0.0, ())}
    assert choose_pinned((only,), salt="m", sticky_key="a") is only


@given(key=keys)
def test_a_canary_of_weight_0_gets_no_pinned_caller(key):
    chosen = choose_pinned(variants_of(0), salt="m", sticky_key=key)

    assert chosen.role == "default"


@given(key=keys)
def test_a_canary_of_weight_100_gets_every_pinned_caller(key):
    chosen = choose_pinned(variants_of(100), salt="m", sticky_key=key)

    assert chosen.role == "canary"


@given(salt=keys, key=keys, weight=weights, growth=weights)
def test_a_growing_canary_keeps_its_pinned_callers(salt, key, weight, growth):
    before = choose_pinned(variants_of(weight), salt=salt, sticky_key=key)
    larger = min(100, weight + growth)
    after = choose_pinned(variants_of(larger), salt=salt, sticky_key=key)

    assert before.role == "default" or after.role == "canary"


def test_the_order_of_variants_does_not_move_pinned_callers():
    both = variants_of(50)

    for key in string.ascii_letters:
        assert choose_pinned(both, salt="m", sticky_key=key) == choose_pinned(
            both[::-1], salt="m", sticky_key=key
        )


def test_pinned_callers_spread_by_weight():
    counts = Counter(
        choose_pinned(variants_of(30), salt="m", sticky_key=f"caller-{n}").role
        for n in range(10_000)
    )

    assert 2_800 < counts["canary"] < 3_200


def test_another_salt_pins_callers_anew():
    first, second = (
        [
            choose_pinned(variants_of(50), salt=salt, sticky_key=f"caller-{n}").role
            for n in range(200)
        ]
        for salt in ("breast-cancer", "diabetes")
    )

    assert first != second


@pytest.mark.parametrize(
    "variants",
    [
        (),
        (Variant(version=1, role="default", weight_percent=90),),
        (Variant(version=1, role="canary", weight_percent=100),),
        (
            Variant(version=1, role="default", weight_percent=110),
            Variant(version=2, role="canary", weight_percent=-10),
        ),
    ],
)
def test_variants_that_are_no_whole_route_are_refused(variants):
    with pytest.raises(ValueError, match=r"weights|default"):
        Deal(variants)
