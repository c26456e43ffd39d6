"""Messages are read as they were sent, however their bytes are cut."""

import gzip
import itertools
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.gateway.grpc.messages import MessageReader, MessageTooLarge, inflate
from tests.inference.gateway.http2.peer import framed

MOST = 1000


def taken(reader):
    found = []
    while reader.complete:
        compressed, body = reader.take()
        found.append((compressed, bytes(body)))
    return found


@given(
    st.lists(st.tuples(st.booleans(), st.binary(max_size=MOST)), max_size=8),
    st.lists(st.integers(0, 3000), max_size=12),
)
def test_messages_come_out_as_they_went_in(messages, cuts):
    data = b"".join(framed(body, compressed=flag) for flag, body in messages)
    places = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    reader, found = MessageReader(MOST), []

    for start, end in itertools.pairwise(places):
        reader.feed(data[start:end])
        found += taken(reader)

    assert found == messages
    assert reader.bytes_kept == 0


def test_a_message_byte_by_byte_does_not_take_many_times_its_size():
    reader = MessageReader(MOST)

    for byte in framed(b"x" * MOST):
        assert not reader.complete
        reader.feed(bytes([byte]))

    assert taken(reader) == [(False, b"x" * MOST)]


def test_what_is_missing_is_known_with_the_length():
    reader = MessageReader(MOST)
    reader.feed(framed(b"", length=100) + b"12345")

    assert not reader.complete
    assert reader.bytes_missing == 95


@pytest.mark.parametrize("length", [MOST + 1, 2**32 - 1])
def test_too_large_a_message_is_known_by_its_length(length):
    reader = MessageReader(MOST)
    reader.feed(framed(b"", length=length))

    with pytest.raises(MessageTooLarge):
        _ = reader.complete


def test_what_begins_otherwise_is_no_message():
    reader = MessageReader(MOST)
    reader.feed(b"\x02\0\0\0\0")

    with pytest.raises(ValueError, match="0 or 1"):
        _ = reader.complete


@pytest.mark.parametrize(
    ("compress", "window"), [(gzip.compress, 31), (zlib.compress, 15)]
)
def test_compressed_messages_are_bounded(compress, window):
    assert inflate(compress(b"v" * MOST), window, max_bytes=MOST) == b"v" * MOST
    with pytest.raises(MessageTooLarge):
        inflate(compress(b"v" * (MOST + 1)), window, max_bytes=MOST)
    with pytest.raises(ValueError, match="decompressed"):
        inflate(compress(b"v" * MOST)[:-3], window, max_bytes=MOST)
    with pytest.raises(ValueError, match="decompressed"):
        inflate(b"nothing", window, max_bytes=MOST)
