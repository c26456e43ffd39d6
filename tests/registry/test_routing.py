import string
from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.routing import Variant, Wheel, choose_pinned

weights = st.integers(min_value=0, max_value=100)
keys = st.text(max_size=40)


def variants_of(canary_weight: int) -> tuple[Variant, ...]:
    return (
        Variant(version=2, role="default", weight_percent=100 - canary_weight),
        Variant(version=3, role="canary", weight_percent=canary_weight),
    )


@given(canary_weight=weights, start=st.integers(min_value=0, max_value=250))
def test_every_window_of_100_holds_each_share_exactly(canary_weight, start):
    wheel = Wheel(variants_of(canary_weight))
    for _ in range(start):
        wheel.next()

    counts = Counter(wheel.next().version for _ in range(100))

    assert counts[2] == 100 - canary_weight
    assert counts[3] == canary_weight


def test_canary_turns_are_spread_evenly():
    wheel = Wheel(variants_of(10))

    chosen = [wheel.next().version for _ in range(100)]

    turns = [index for index, version in enumerate(chosen) if version == 3]
    gaps = {after - before for before, after in pairwise(turns)}
    assert gaps == {10}


def test_a_single_variant_gets_everything():
    only = Variant(version=7, role="default", weight_percent=100)
    wheel = Wheel((only,))

    assert {wheel.next() for _ in range(120)} == {only}
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
        Wheel(variants)
