"""Other decoders read our trailers as they were meant."""

from urllib.parse import unquote

from hpack import Decoder
from hypothesis import given
from hypothesis import strategies as st

from inference.gateway.grpc import statuses
from inference.gateway.grpc.statuses import Status


def read(block):
    return dict(Decoder().decode(block))


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_messages_survive_as_ascii(message):
    fields = read(statuses.refusal(Status.NOT_FOUND, message))

    assert fields[":status"] == "200"
    assert fields["grpc-status"] == "5"
    assert fields["grpc-message"].isascii()
    assert fields["grpc-message"].isprintable()
    assert unquote(fields["grpc-message"]) == message


def test_what_has_ended_is_told_as_a_failed_precondition():
    assert statuses.of_http(410) is Status.FAILED_PRECONDITION


def test_plain_messages_stay_readable():
    block = statuses.trailers(Status.INTERNAL, "It's {broken}: 100 %.")

    assert read(block)["grpc-message"] == "It's {broken}: 100 %25."


def test_metadata_cannot_add_fields_or_lines():
    block = statuses.metadata([(b"RateLimit", b"a\r\nb: c\0\xff"), (b"x-id", b"1")])

    assert read(block) == {"ratelimit": "a??b: c??", "x-id": "1"}
