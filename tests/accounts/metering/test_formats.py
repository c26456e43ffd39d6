"""Events of an older and of a newer version are read."""

import zlib

import msgspec

from accounts.metering import spool
from accounts.metering.event import Dealt, UsageEvent
from tests.accounts.metering.test_spool import event as make_event

_BEFORE_LATER_MEMBERS = 16


def frame(members):
    payload = msgspec.msgpack.encode(members)
    return spool._FRAME.pack(len(payload), zlib.crc32(payload)) + payload


def test_newer_members_are_skipped_and_older_events_get_defaults(tmp_path):
    event = make_event(1)
    members = msgspec.msgpack.decode(msgspec.msgpack.encode(event))
    path = tmp_path / "boot-1.spool"
    path.write_bytes(
        frame([*members, "a later member"]) + frame(members[:_BEFORE_LATER_MEMBERS])
    )

    newer, older = (found for found, _ in spool.read_events(path))

    assert newer == event
    assert (older.id, older.cached, older.message) == (event.id, False, "")


def test_an_event_without_the_dealing_of_its_call_reads_and_older_readers_skip_it():
    event = msgspec.structs.replace(
        make_event(1), dealt=Dealt(3, True, 0.5, "a fault", predicted=7), used=5
    )
    fields = msgspec.structs.fields(UsageEvent)
    before = fields[: [field.name for field in fields].index("dealt")]
    older = msgspec.defstruct(
        "Older",
        [(field.encode_name, field.type) for field in before],
        array_like=True,
        frozen=True,
    )
    written = msgspec.msgpack.encode(event)

    read_by_older = msgspec.msgpack.decode(written, type=older)
    read_again = msgspec.msgpack.decode(
        msgspec.msgpack.encode(read_by_older), type=UsageEvent
    )

    assert msgspec.msgpack.decode(written, type=UsageEvent) == event
    assert read_again == msgspec.structs.replace(event, dealt=None, used=None)


def test_a_dealing_among_several_canaries_reads_and_so_does_an_earlier_one():
    dealt = Dealt(3, False, 0.5, "", ((4, 0.25), (5, 0.0)))
    members = msgspec.msgpack.decode(msgspec.msgpack.encode(dealt))

    newer = msgspec.msgpack.decode(msgspec.msgpack.encode(members), type=Dealt)
    older = msgspec.msgpack.decode(msgspec.msgpack.encode(members[:4]), type=Dealt)

    assert newer == dealt
    assert older == Dealt(3, False, 0.5)
    assert [newer.chances.get(canary) for canary in (3, 4, 5, 6)] == [
        0.5,
        0.25,
        0.0,
        None,
    ]
