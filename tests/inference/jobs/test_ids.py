from datetime import UTC, datetime, timedelta

import pytest

from inference.jobs import ids as job_ids

NOW = datetime(2026, 11, 20, 10, 30, tzinfo=UTC)


def test_an_id_sorts_after_those_of_earlier_times():
    earlier = job_ids.new_id(now=NOW, randomness=b"\xff" * 10)
    later = job_ids.new_id(now=NOW + timedelta(milliseconds=1), randomness=bytes(10))

    assert earlier < later
    assert len(earlier) == 30


def test_an_id_tells_its_time():
    assert job_ids.created_at(job_ids.new_id(now=NOW, randomness=bytes(10))) == NOW


def test_ids_of_one_moment_differ_by_their_randomness():
    one = job_ids.new_id(now=NOW, randomness=bytes(10))
    other = job_ids.new_id(now=NOW, randomness=b"\x01" * 10)

    assert one != other


@pytest.mark.parametrize(
    "text",
    ["", "job_", "job_../../etc", "job_" + "0" * 25, "job_" + "U" * 26, "x" + "0" * 29],
)
def test_other_text_is_no_id(text):
    assert not job_ids.is_id(text)


def test_a_new_id_is_one():
    assert job_ids.is_id(job_ids.new_id(now=NOW, randomness=b"\xff" * 10))
