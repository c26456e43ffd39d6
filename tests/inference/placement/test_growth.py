"""A leak is steady growth, and nothing else is."""

import math
import random

import pytest

from inference.placement.growth import steady_growth

MIB = 1 << 20


def samples(function, minutes=60):
    return [(60.0 * m, int(function(m) * MIB)) for m in range(minutes + 1)]


def noisy(m):
    return 500 + 2 * m + random.Random(m).uniform(-3, 3)


def test_a_leak_is_found_with_its_pace():
    assert steady_growth(samples(noisy)) == pytest.approx(120 * MIB, rel=0.1)


@pytest.mark.parametrize(
    "function",
    [
        lambda m: 500,
        # One jump; two; a cache that fills; memory that is given back; too little.
        lambda m: 500 + 300 * (m > 30),
        lambda m: 500 + 300 * (m > 20) + 300 * (m > 40),
        lambda m: 500 + 300 * (1 - math.exp(-m / 5)),
        lambda m: 500 + 20 * (m % 15),
        lambda m: 500 + 0.7 * m,
        lambda m: 900 - 3 * m,
    ],
)
def test_what_does_not_grow_steadily_is_no_leak(function):
    assert steady_growth(samples(function)) is None


def test_half_an_hour_is_the_least():
    assert steady_growth(samples(lambda m: 10 * m, minutes=29)) is None
    assert steady_growth(samples(lambda m: 10 * m, minutes=30)) is not None


def test_a_gap_is_no_growth():
    gap = samples(lambda m: m, 10) + [(7200.0 + 60 * m, 900 * MIB) for m in range(10)]

    assert steady_growth(gap) is None
    assert steady_growth([]) is None
