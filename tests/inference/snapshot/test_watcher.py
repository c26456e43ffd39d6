import gc
import hashlib
import os

import msgspec
import pytest

from accounts.admission.limits import Limits
from inference.snapshot import snapshot_file
from inference.snapshot.contents import (
    PART_BYTES,
    AccessCustomer,
    AccessKey,
    Delta,
    Snapshot,
)
from inference.snapshot.snapshot_file import (
    SnapshotCorrupt,
    SnapshotReader,
    SnapshotReplaced,
    SnapshotWriter,
)
from inference.snapshot.tables import Tables
from inference.snapshot.watcher import SnapshotWatcher


@pytest.fixture
def watched(tmp_path):
    taken: list[int] = []
    path = tmp_path / "current.snapshot"
    watcher = SnapshotWatcher(
        path, Tables(), on_change=lambda found: taken.append(found.sequence)
    )
    return path, watcher, taken


def published(sequence):
    return Snapshot(sequence=sequence, published_at=1.0)


def test_every_new_snapshot_is_taken_once(watched):
    path, watcher, taken = watched

    assert not watcher.look()
    for sequence in (1, 2):
        snapshot_file.write(path, published(sequence))
        assert watcher.look()
        assert not watcher.look()

    assert taken == [1, 2]


@pytest.mark.parametrize("damage", [b"", b"MYSNAP01", b"x" * 200])
def test_damaged_file_keeps_the_last_good_snapshot(watched, damage):
    path, watcher, taken = watched
    snapshot_file.write(path, published(1))
    watcher.look()

    path.write_bytes(damage)
    assert not watcher.look()
    snapshot_file.write(path, published(2))
    assert watcher.look()

    assert taken == [1, 2]


def test_file_that_vanishes_keeps_the_last_good_snapshot(watched):
    path, watcher, taken = watched
    snapshot_file.write(path, published(1))
    watcher.look()

    path.unlink()

    assert not watcher.look()
    assert taken == [1]


def key(number):
    return AccessKey(
        key_id=f"k{number}",
        digest=hashlib.sha256(b"%d" % number).digest(),
        customer_id=1,
        scopes=("predict",),
    )


def many_keys(count):
    return Snapshot(
        sequence=1,
        published_at=1.0,
        customers=(AccessCustomer(customer_id=1, limits=Limits(plan="p", rates=())),),
        keys=tuple(key(number) for number in range(count)),
    )


@pytest.fixture
def followed(tmp_path):
    """Return a writer with three keys, the tables that follow it, and their watcher."""
    path = tmp_path / "current.snapshot"
    writer = SnapshotWriter(path, many_keys(3))
    writer.put_in_place()
    tables = Tables()
    watcher = SnapshotWatcher(path, tables)
    watcher.look()
    yield path, writer, tables, watcher
    writer.close()


def test_deltas_are_read_where_the_last_reading_ended(followed):
    _, writer, tables, watcher = followed
    for sequence, digest in ((2, key(0).digest), (3, key(1).digest)):
        writer.append(Delta(sequence=sequence, base=sequence - 1, gone_keys=(digest,)))

    assert watcher.look()

    assert tables.sequence == 3
    assert tables.as_snapshot().keys == (key(2),)
    assert not watcher.look()


def test_a_record_that_is_not_whole_yet_is_awaited(followed):
    path, writer, tables, watcher = followed
    whole = path.stat().st_size
    writer.append(Delta(sequence=2, base=1, gone_keys=(key(0).digest,)))
    record = path.read_bytes()[whole:]
    os.truncate(path, whole)

    with path.open("ab", buffering=0) as file:
        for number in range(len(record) - 1):
            file.write(record[number : number + 1])
            assert not watcher.look()
        file.write(record[-1:])

    assert watcher.look()
    assert tables.sequence == 2


def test_a_damaged_delta_leaves_what_came_before(followed):
    path, writer, tables, watcher = followed
    writer.append(Delta(sequence=2, base=1, gone_keys=(key(0).digest,)))
    damaged = bytearray(path.read_bytes())
    damaged[-1] ^= 1
    path.write_bytes(damaged)

    watcher.look()

    assert tables.sequence == 1
    snapshot_file.write(path, many_keys(1))
    assert watcher.look()
    assert tables.as_snapshot().keys == (key(0),)


def test_a_missed_delta_makes_it_read_the_whole(followed):
    _, writer, tables, watcher = followed
    tables.take(Delta(sequence=9, base=1))
    writer.append(Delta(sequence=2, base=1, gone_keys=(key(0).digest,)))

    watcher.look()
    watcher.look()

    assert tables.sequence == 2
    assert len(tables.as_snapshot().keys) == 2


def test_a_replaced_file_takes_no_more_deltas(followed):
    path, writer, _, _ = followed
    snapshot_file.write(path, many_keys(1))

    with pytest.raises(SnapshotReplaced):
        writer.append(Delta(sequence=2, base=1))


@pytest.mark.parametrize("kept", [0.5, 0.999])
def test_a_snapshot_that_is_cut_off_is_not_taken(tmp_path, kept):
    path = tmp_path / "current.snapshot"
    snapshot_file.write(path, many_keys(1000))
    os.truncate(path, int(path.stat().st_size * kept))
    tables = Tables()

    assert not SnapshotWatcher(path, tables).look()
    with pytest.raises(SnapshotCorrupt):
        snapshot_file.read(path)

    assert tables.sequence == 0


def test_a_snapshot_is_read_in_small_parts(tmp_path):
    """The event loop is free after each part."""
    path = tmp_path / "current.snapshot"
    snapshot_file.write(path, many_keys(5000))

    parts = list(SnapshotReader(path).parts())

    sizes = [len(msgspec.msgpack.encode(part)) for part in parts]
    assert len(parts) > 10
    assert max(sizes) < 1.1 * PART_BYTES
    tables = Tables(snapshot_file.read(path))
    assert all(tables.find_key(key(number).digest) for number in range(5000))


def test_keys_of_a_whole_snapshot_are_no_work_for_the_garbage_collector(tmp_path):
    path = tmp_path / "current.snapshot"
    snapshot_file.write(path, many_keys(5000))
    watcher = SnapshotWatcher(path, Tables())
    gc.collect()
    gc.disable()
    try:
        before = len(gc.get_objects())
        watcher.look()
        made = len(gc.get_objects()) - before
    finally:
        gc.enable()

    assert made < 500


def test_a_file_takes_deltas_while_the_next_one_is_written(followed):
    path, writer, tables, watcher = followed
    renewed = SnapshotWriter(path, many_keys(3))
    revoked = Delta(sequence=2, base=1, gone_keys=(key(0).digest,))

    writer.append(revoked)

    assert watcher.look()
    assert tables.find_key(key(0).digest) is None
    renewed.put_in_place([revoked])
    renewed.append(Delta(sequence=3, base=2, gone_keys=(key(1).digest,)))
    renewed.close()
    for part in SnapshotReader(path).parts():
        # A revoked key does not come back, not even for a moment.
        assert tables.find_key(key(0).digest) is None
        tables.take(part)
    assert tables.as_snapshot().keys == (key(2),)
    assert tables.sequence == 3
    assert list(path.parent.iterdir()) == [path]


def test_a_file_that_was_never_put_in_place_leaves_nothing(followed):
    path, _, _, watcher = followed

    SnapshotWriter(path, many_keys(1)).discard()

    assert not watcher.look()
    assert list(path.parent.iterdir()) == [path]
