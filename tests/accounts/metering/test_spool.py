import os
import signal
import subprocess
import sys

import pytest

from accounts.metering import spool
from accounts.metering.comparison import ComparedCalls
from accounts.metering.event import UsageEvent
from accounts.metering.spool import SpoolUnavailable, SpoolWriter, read_events


def event(number, **changes):
    fields = {
        "id": f"boot-{number}",
        "at": 1.0,
        "customer_id": 7,
        "key_id": "k",
        "operation": "predict",
        "model": "m",
        "version": "1",
        "variant": "default",
        "status": 200,
        "code": "",
        "rows": number,
        "charged": True,
        "compute_us": 1,
        "total_us": 2,
        "shap_samples": 0,
        "request_id": "r",
    }
    return UsageEvent(**(fields | changes))


def ids(path, offset=0):
    return [found.id for found, _ in read_events(path, offset)]


def segments(folder):
    return sorted(path.name for path in folder.glob("*.spool"))


def test_events_come_back_as_they_were_written(tmp_path):
    writer = SpoolWriter(tmp_path, "boot")
    events = [event(number) for number in range(5)]

    writer.append(events[:2])
    writer.append(events[2:])

    [path] = tmp_path.iterdir()
    assert path.name == "boot-1.spool"
    assert [found for found, _ in read_events(path)] == events
    writer.close()


def test_reading_goes_on_where_it_stopped(tmp_path):
    writer = SpoolWriter(tmp_path, "boot")
    writer.append([event(1), event(2)])
    path = tmp_path / "boot-1.spool"
    offsets = [offset for _, offset in read_events(path)]

    writer.append([event(3)])

    assert ids(path, offsets[0]) == ["boot-2", "boot-3"]
    assert ids(path, offsets[1]) == ["boot-3"]
    writer.close()


def test_torn_tail_is_left_at_every_length(tmp_path):
    writer = SpoolWriter(tmp_path, "boot")
    writer.append([event(1), event(2)])
    writer.close()
    path = tmp_path / "boot-1.spool"
    whole = path.read_bytes()
    first = next(read_events(path))[1]

    for length in range(first, len(whole)):
        path.write_bytes(whole[:length])
        assert ids(path) == ["boot-1"]


def test_damaged_frame_stops_the_reading(tmp_path):
    writer = SpoolWriter(tmp_path, "boot")
    writer.append([event(1), event(2)])
    writer.close()
    path = tmp_path / "boot-1.spool"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1

    path.write_bytes(content)

    assert ids(path) == ["boot-1"]


def test_segments_are_rotated_by_size(tmp_path):
    writer = SpoolWriter(tmp_path, "boot", max_segment_bytes=200)

    for number in range(4):
        writer.append([event(number)])
    writer.close()

    names = segments(tmp_path)
    assert len(names) > 1
    assert [i for name in names for i in ids(tmp_path / name)] == [
        "boot-0",
        "boot-1",
        "boot-2",
        "boot-3",
    ]


def test_full_spool_refuses_and_keeps_what_it_has(tmp_path):
    writer = SpoolWriter(tmp_path, "boot", max_total_bytes=250)
    writer.append([event(1)])
    writer.append([event(2)])

    with pytest.raises(SpoolUnavailable):
        writer.append([event(number) for number in range(3, 6)])

    writer.close()
    assert ids(tmp_path / "boot-1.spool") == ["boot-1", "boot-2"]


def test_spool_takes_events_again_once_others_were_removed(tmp_path):
    (tmp_path / "old-1.spool").write_bytes(b"x" * 300)
    writer = SpoolWriter(tmp_path, "boot", max_total_bytes=300)
    with pytest.raises(SpoolUnavailable):
        writer.append([event(1)])

    (tmp_path / "old-1.spool").unlink()
    writer.measure()

    writer.append([event(1)])
    assert ids(tmp_path / "boot-1.spool") == ["boot-1"]
    writer.close()


def test_short_write_leaves_no_torn_frame(tmp_path, monkeypatch):
    writer = SpoolWriter(tmp_path, "boot")
    writer.append([event(1)])
    write = os.write
    monkeypatch.setattr(os, "write", lambda file, data: write(file, data[:10]))
    with pytest.raises(SpoolUnavailable):
        writer.append([event(2)])
    monkeypatch.undo()

    writer.append([event(3)])

    assert ids(tmp_path / "boot-1.spool") == ["boot-1", "boot-3"]
    writer.close()


def test_lock_tells_a_living_writer_from_a_finished_one(tmp_path):
    writer = SpoolWriter(tmp_path, "boot")
    path = tmp_path / "boot-1.spool"

    assert spool.is_being_written(path)
    writer.close()

    assert not spool.is_being_written(path)


def test_name_of_a_segment_tells_its_writer(tmp_path):
    assert spool.boot_id_of(tmp_path / "site-ab-12.spool") == "site-ab"


WRITE_UNTIL_KILLED = """
import sys
from pathlib import Path
from accounts.metering.spool import SpoolWriter
from tests.accounts.metering.test_spool import event

writer = SpoolWriter(Path(sys.argv[1]), "boot", max_segment_bytes=5000)
for number in range(10**9):
    writer.append([event(number)])
    # Only now may an answer leave.
    print(number, flush=True)
"""


@pytest.mark.processes
def test_killed_writer_leaves_every_event_that_was_answered(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", WRITE_UNTIL_KILLED, str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
    )
    answered = [int(process.stdout.readline()) for _ in range(300)]
    process.send_signal(signal.SIGKILL)
    answered += [int(line) for line in process.stdout.read().split("\n")[:-1]]
    process.wait()
    process.stdout.close()

    paths = sorted(tmp_path.iterdir(), key=lambda path: int(path.stem.split("-")[1]))
    recorded = [found.rows for path in paths for found, _ in read_events(path)]

    assert not any(spool.is_being_written(path) for path in paths)
    assert recorded[: len(answered)] == answered
    # Surplus: at most the one that was in flight.
    assert len(recorded) <= len(answered) + 1


def test_events_are_found_by_their_request_id(tmp_path):
    first, second = SpoolWriter(tmp_path, "one"), SpoolWriter(tmp_path, "two")
    first.append([event(1, request_id="wanted"), event(2, request_id="wanted-not")])
    second.append([event(3), event(4, request_id="wanted")])

    found = [one.rows for one in spool.find_events(tmp_path, "wanted")]

    assert found == [1, 4]
    assert list(spool.find_events(tmp_path, "none")) == []


def test_what_copies_found_is_between_the_events_and_is_none(tmp_path):
    compared = ComparedCalls(
        at=1.0,
        customer_id=7,
        key_id="k",
        model="m",
        default=1,
        shadow=2,
        calls=3,
        failed=0,
        changed=1.5,
        rows=3,
        changed_rows=2,
        distance=0.25,
        default_us=10,
        shadow_us=20,
    )
    with_events = [event(1), event(2)]
    writer = SpoolWriter(tmp_path, "boot")
    writer.append([with_events[0]])
    writer.append_encoded([spool.encode_event(compared)])
    writer.append([with_events[1]])
    writer.close()
    [path] = tmp_path.glob("*.spool")

    assert [found for found, _ in spool.read(path)] == [
        with_events[0],
        compared,
        with_events[1],
    ]
    assert [found for found, _ in read_events(path)] == with_events
    assert [*spool.read(path)][-1][1] == path.stat().st_size
