import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.openapi.short_numbers import shortened


@pytest.mark.parametrize(
    ("logged", "shown"),
    [
        (13.680000305175781, 13.68),
        (0.003828000044450164, 0.003828),
        (575.5, 575.5),
        (0.1, 0.1),
        (1e300, 1e300),
        (float("inf"), float("inf")),
        (7, 7),
        (True, True),
        ("text", "text"),
        (None, None),
    ],
)
def test_a_number_is_shown_as_people_write_it(logged, shown):
    assert shortened([{"column": [logged]}]) == [{"column": [shown]}]


@given(st.floats(width=32, allow_nan=False))
def test_a_shortened_number_is_the_same_to_the_model(value):
    assert struct.pack("f", shortened(value)) == struct.pack("f", value)
