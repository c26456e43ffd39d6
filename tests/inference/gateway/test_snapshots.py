import pytest

from inference import snapshot
from inference.gateway.snapshots import SnapshotWatcher
from inference.snapshot import Snapshot


@pytest.fixture
def watched(tmp_path):
    taken = []
    path = tmp_path / "current.snapshot"
    watcher = SnapshotWatcher(path, lambda found: taken.append(found.sequence))
    return path, watcher, taken


def published(sequence):
    return Snapshot(sequence=sequence, published_at=1.0)


def test_every_new_snapshot_is_taken_once(watched):
    path, watcher, taken = watched

    assert not watcher.look()
    for sequence in (1, 2):
        snapshot.write(path, published(sequence))
        assert watcher.look()
        assert not watcher.look()

    assert taken == [1, 2]


@pytest.mark.parametrize("damage", [b"", b"MYSNAP01", b"x" * 200])
def test_damaged_file_keeps_the_last_good_snapshot(watched, damage):
    path, watcher, taken = watched
    snapshot.write(path, published(1))
    watcher.look()

    path.write_bytes(damage)
    assert not watcher.look()
    snapshot.write(path, published(2))
    assert watcher.look()

    assert taken == [1, 2]


def test_file_that_vanishes_keeps_the_last_good_snapshot(watched):
    path, watcher, taken = watched
    snapshot.write(path, published(1))
    watcher.look()

    path.unlink()

    assert not watcher.look()
    assert taken == [1]
