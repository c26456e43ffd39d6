import os

import pytest

from accounts.metering import calls
from accounts.metering.calls import CallIndex, StillReading
from accounts.metering.spool import SpoolWriter
from tests.accounts.metering.test_spool import event


@pytest.fixture
def writer(tmp_path):
    writer = SpoolWriter(tmp_path, "boot")
    yield writer
    writer.close()


def answered(request_id, **changes):
    return event(1, request_id=request_id, **changes)


def finish(writer, folder):
    """Complete the segment, long enough ago."""
    writer.close()
    for path in folder.glob("*.spool"):
        os.utime(path, (1, 1))


def versions(found):
    return {request_id: each.version for request_id, each in found.items()}


def test_a_call_is_found_as_soon_as_its_event_is_written(tmp_path, writer):
    index = CallIndex(tmp_path)
    writer.append([answered("a", version="1"), answered("b", version="2")])
    assert versions(index.find(7, ["a", "c"])) == {"a": "1"}

    writer.append([answered("c", version="3")])

    assert versions(index.find(7, ["a", "b", "c"])) == {"a": "1", "b": "2", "c": "3"}


def test_calls_of_other_customers_and_refused_ones_are_not_found(tmp_path, writer):
    writer.append(
        [answered("theirs", customer_id=8), answered("refused", status=400, rows=0)]
    )

    assert CallIndex(tmp_path).find(7, ["theirs", "refused", "unknown"]) == {}


def test_of_calls_with_one_id_the_newest_is_found(tmp_path, writer):
    writer.append([answered("a", version="1", at=1.0)])
    other = SpoolWriter(tmp_path, "another")
    other.append([answered("a", version="3", at=3.0)])
    writer.append([answered("a", version="2", at=2.0)])

    assert versions(CallIndex(tmp_path).find(7, ["a"])) == {"a": "3"}
    other.close()


def test_a_complete_segment_is_read_once_by_all_processes(tmp_path):
    writer = SpoolWriter(tmp_path, "boot")
    writer.append([answered(f"r{number}", version=str(number)) for number in range(50)])
    finish(writer, tmp_path)
    CallIndex(tmp_path).find(7, ["r1"])

    # Without any time only the index can tell.
    found = CallIndex(tmp_path).find(7, ["r1", "r49", "r50"], budget_s=0.0)

    assert versions(found) == {"r1": "1", "r49": "49"}
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".calls", ".spool"]


def test_what_takes_too_long_goes_on_where_it_stopped(tmp_path, writer):
    index = CallIndex(tmp_path)
    writer.append(
        [answered(f"r{number}", version=str(number)) for number in range(2500)]
    )

    for _ in range(2):
        with pytest.raises(StillReading):
            index.find(7, ["r2400"], budget_s=0.0)

    assert versions(index.find(7, ["r2400"], budget_s=0.0)) == {"r2400": "2400"}


def test_a_damaged_index_is_made_again(tmp_path):
    writer = SpoolWriter(tmp_path, "boot")
    writer.append([answered("a")])
    finish(writer, tmp_path)
    (tmp_path / "boot-1.calls").write_bytes(b"torn")

    assert versions(CallIndex(tmp_path).find(7, ["a"])) == {"a": "1"}
    assert (tmp_path / "boot-1.calls").stat().st_size == 16


def test_an_index_of_no_calls_is_read(tmp_path):
    writer = SpoolWriter(tmp_path, "boot")
    writer.append([answered("a", status=503)])
    finish(writer, tmp_path)

    for _ in range(2):
        assert CallIndex(tmp_path).find(7, ["a"]) == {}


def test_a_deleted_segment_is_forgotten_with_its_index(tmp_path):
    writer = SpoolWriter(tmp_path, "boot")
    writer.append([answered("a")])
    finish(writer, tmp_path)
    index = CallIndex(tmp_path)
    assert index.find(7, ["a"])
    assert index.find(7, ["a"])

    calls.delete(tmp_path / "boot-1.spool")

    assert index.find(7, ["a"]) == {}
    assert list(tmp_path.iterdir()) == []


def test_indexes_without_a_segment_are_deleted(tmp_path):
    SpoolWriter(tmp_path, "boot").close()
    [segment] = tmp_path.glob("*.spool")
    own = segment.with_suffix(".calls")
    orphan = tmp_path / "other-1.calls"
    left, young = tmp_path / "tmpabcdefgh", tmp_path / "tmpyoung"
    for path in (own, orphan, left, young):
        path.touch()
    os.utime(left, (1, 1))

    calls.delete_orphans(tmp_path)

    assert sorted(tmp_path.iterdir()) == sorted([segment, own, young])
