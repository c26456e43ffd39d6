import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.engine.signatures import padding
from inference.engine.signatures.padding import Padding, TooLong


def test_a_length_goes_to_the_next_bucket():
    rule = Padding(buckets=(16, 32))

    assert [rule.bucket(length) for length in (1, 16, 17, 32)] == [16, 16, 32, 32]


def test_what_is_longer_than_the_largest_bucket_names_the_limit():
    with pytest.raises(TooLong, match="33 values in a row; 32 are the most"):
        Padding(buckets=(16, 32)).bucket(33)


def test_the_mask_is_filled_up_with_zeros_whatever_the_value_is():
    rule = Padding(value=7, mask_input="attention_mask")

    assert rule.fill("input_ids") == 7
    assert rule.fill("attention_mask") == 0


def test_metadata_gives_buckets_in_any_order():
    rule = padding.from_metadata({"value": 1, "buckets": [64, 16], "mask_input": "m"})

    assert rule == Padding(value=1, buckets=(16, 64), mask_input="m")
    assert padding.from_metadata({}).longest == 512


def test_rows_are_filled_up_at_their_end():
    rows = np.array([[1, 2], [3, 4]], np.int64)

    filled = padding.fill_up(rows, (4,), 9)

    assert filled.tolist() == [[1, 2, 9, 9], [3, 4, 9, 9]]
    assert filled.dtype == np.int64
    assert padding.fill_up(rows, (2,), 9) is rows


def test_rows_of_one_request_are_filled_up_to_the_longest():
    rows = [np.array([[1.0, 2.0]]), np.array([[3.0], [4.0]])]

    stacked = padding.stack(rows, 0)

    assert stacked.tolist() == [[[1, 2], [0, 0]], [[3, 0], [4, 0]]]


def test_a_mask_marks_what_was_there():
    assert padding.mask([1, 3], "int64").tolist() == [[1, 0, 0], [1, 1, 1]]


@pytest.mark.parametrize(
    ("most", "count", "expected"),
    [
        (8, 8, (1, 2, 4, 8)),
        (12, 8, (1, 2, 4, 8, 12)),
        (1, 8, (1,)),
        (256, 9, (1, 2, 4, 8, 16, 32, 64, 128, 256)),
        (256, 4, (1, 8, 64, 256)),
        (256, 2, (1, 256)),
        (256, 1, (256,)),
    ],
)
def test_sizes_of_batches_are_powers_of_two_within_a_budget(most, count, expected):
    assert padding.row_buckets(most, count) == expected


@given(st.integers(1, 5000), st.integers(1, 20))
def test_sizes_ascend_to_the_largest_and_keep_the_budget(most, count):
    sizes = padding.row_buckets(most, count)

    assert list(sizes) == sorted(set(sizes))
    assert sizes[-1] == most
    assert len(sizes) <= count
