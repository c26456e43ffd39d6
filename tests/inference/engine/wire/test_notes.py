import os
import signal

from inference.engine.wire.notes import SLOTS, Note, NoteReader, SharedNotes


def test_the_reader_sees_what_runs_the_oldest_first(tmp_path):
    reader = NoteReader(tmp_path / "notes")
    times = iter([1.0, 2.0, 3.0])
    notes = SharedNotes(tmp_path / "notes", clock=lambda: next(times))

    notes.begin("risk v1", 0, 0, loading=True)
    slot = notes.begin("churn v3", 5, 7)
    notes.begin("éclair v2", 1, 8)

    assert reader.read() == [
        Note("risk v1", 0, 0, 1.0, True),
        Note("churn v3", 5, 7, 2.0, False),
        Note("éclair v2", 1, 8, 3.0, False),
    ]
    notes.end(slot)
    assert [note.name for note in reader.read()] == ["risk v1", "éclair v2"]


def test_a_slot_is_used_again_for_another_version(tmp_path):
    reader = NoteReader(tmp_path / "notes")
    notes = SharedNotes(tmp_path / "notes")
    notes.end(notes.begin("a longer name v1", 1, 1))

    notes.begin("short v2", 2, 2)

    assert [(note.name, note.rows) for note in reader.read()] == [("short v2", 2)]


def test_more_pieces_than_slots_are_not_noted(tmp_path):
    reader = NoteReader(tmp_path / "notes")
    notes = SharedNotes(tmp_path / "notes")

    slots = [notes.begin(f"v{number}", 1, number) for number in range(SLOTS + 1)]

    assert slots[-1] == -1
    notes.end(-1)
    assert len(reader.read()) == SLOTS


def test_notes_outlive_a_killed_process(tmp_path):
    reader = NoteReader(tmp_path / "notes")
    child = os.fork()
    if child == 0:
        SharedNotes(tmp_path / "notes").begin("churn v3", 5, 7)
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)

    assert [note.name for note in reader.read()] == ["churn v3"]


def test_the_loop_s_beat_and_the_empty_process_are_read(tmp_path):
    reader = NoteReader(tmp_path / "notes")
    assert (reader.beat(), reader.empty(), reader.walls()) == (0.0, 0, {})
    notes = SharedNotes(tmp_path / "notes", clock=lambda: 4.5)

    notes.empty(1234)
    notes.beat()
    notes.walls({"files": "held"})

    assert (reader.beat(), reader.empty()) == (4.5, 1234)
    assert reader.walls() == {"files": "held"}


def test_whatever_a_process_wrote_can_be_read(tmp_path):
    reader = NoteReader(tmp_path / "notes")
    path = tmp_path / "notes"
    size = path.stat().st_size
    for byte in (b"\xff", b"\x01", b"\x02"):
        with path.open("r+b") as file:
            file.write(byte * size)

        assert isinstance(reader.read(), list)
        assert reader.walls() == {}


def test_the_notes_have_their_place_on_the_disk(tmp_path):
    NoteReader(tmp_path / "notes")

    found = (tmp_path / "notes").stat()
    assert found.st_blocks * 512 >= found.st_size > 0


def test_no_process_notes_more_rows_than_a_database_holds(tmp_path):
    reader = NoteReader(tmp_path / "notes")
    SharedNotes(tmp_path / "notes").begin("churn v3", 2**32 - 1, 1)

    assert reader.read()[0].rows == 2**31 - 1
