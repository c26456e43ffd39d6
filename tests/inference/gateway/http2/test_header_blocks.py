"""Repeated header blocks are not decoded again, and have the same meaning."""

import pytest
from hpack import Decoder, Encoder
from hpack.exceptions import HPACKError
from hypothesis import given
from hypothesis import strategies as st

from inference.gateway.http2 import limits
from inference.gateway.http2.frames import Code, ConnectionFault
from inference.gateway.http2.header_blocks import HeaderReader, literal

FIELDS = [(b":path", b"/m"), (b"authorization", b"Bearer secret"), (b"te", b"trailers")]


class Counting:
    """Count calls, and return the fields as they are."""

    def __init__(self):
        self.count = 0

    def __call__(self, fields):
        self.count += 1
        return tuple(fields)


def ignore(count):
    """Spend nothing for a block."""


def read(reader, block):
    """Read a block as a connection does."""
    found = reader.kept.get(block)
    return reader.read(block) if found is None else found


def test_a_block_that_comes_again_is_read_once():
    interpret, encoder = Counting(), Encoder()
    reader = HeaderReader(interpret, ignore)

    found = [read(reader, encoder.encode(FIELDS)) for _ in range(10)]

    assert found == [tuple(FIELDS)] * 10
    # The first fills the table, the second is remembered.
    assert interpret.count == 2


NAMES = st.sampled_from([b"a", b"b", b":path", b"x-long-name", b"te"])
VALUES = st.sampled_from([b"", b"1", b"2", b"trailers", b"v" * 300, b"w" * 1500])
LISTS = st.lists(st.tuples(NAMES, VALUES), max_size=5)


@given(st.lists(st.one_of(LISTS, st.sampled_from([0, 100, 4096]))), st.booleans())
def test_what_is_remembered_is_what_a_decoder_would_read(steps, huffman):
    encoder, decoder = Encoder(), Decoder()
    reader = HeaderReader(tuple, ignore)

    for step in steps:
        if isinstance(step, int):
            # The next block begins with a change of the table's size.
            encoder.header_table_size = step
            continue
        # Sent as often as it takes to be remembered, and once more.
        for _ in range(3):
            block = encoder.encode(step, huffman=huffman)
            try:
                expected = decoder.decode(block, raw=True)
            except HPACKError:
                # This encoder writes some blocks that no decoder reads.
                with pytest.raises(ConnectionFault):
                    read(reader, block)
                return
            assert read(reader, block) == tuple(map(tuple, expected))


def test_blocks_are_forgotten_when_the_table_changes():
    encoder, reader = Encoder(), HeaderReader(tuple, ignore)
    for _ in range(2):
        read(reader, encoder.encode(FIELDS))
    block = encoder.encode(FIELDS)
    assert block in reader.kept

    read(reader, encoder.encode([(b"new", b"entry")]))

    assert not reader.kept


def test_bytes_and_fields_have_their_price_once():
    paid, encoder = [], Encoder()
    reader = HeaderReader(tuple, paid.append)
    blocks = [encoder.encode(FIELDS) for _ in range(5)]

    for block in blocks:
        read(reader, block)

    price = limits.FIELD_BYTES * len(FIELDS)
    assert paid == [len(block) + price for block in blocks[:2]]


def test_few_blocks_are_remembered_and_no_long_ones():
    reader = HeaderReader(tuple, ignore)

    for number in range(10 * limits.MAX_KEPT_BLOCKS):
        read(reader, literal(b"x", b"%d" % number))
        assert len(reader.kept) <= limits.MAX_KEPT_BLOCKS
    read(reader, long := literal(b"x", b"v" * limits.MAX_KEPT_BLOCK_BYTES))

    assert long not in reader.kept


@pytest.mark.parametrize(
    ("block", "code"),
    [
        # An index without an entry; a literal cut short; an endless number.
        (b"\xff\x00", Code.COMPRESSION_ERROR),
        (b"\x00\x05abc", Code.COMPRESSION_ERROR),
        (b"\xff" + b"\xff" * 5000, Code.COMPRESSION_ERROR),
        # A table larger than we allow; a size update behind a field.
        (b"\x3f\xe1\xff\x03", Code.COMPRESSION_ERROR),
        (b"\x82\x20", Code.COMPRESSION_ERROR),
        # A Huffman code that ends in the middle.
        (b"\x00\x81\xff\x81\xff", Code.COMPRESSION_ERROR),
        # One entry of 4 KB, named a thousand times in as many bytes.
        (b"\x40\x01x" + b"\x7f\x80\x1e" + b"v" * 3967 + b"\xbe" * 1000, None),
    ],
)
def test_bombs_and_nonsense_end_the_connection(block, code):
    with pytest.raises(ConnectionFault) as caught:
        HeaderReader(tuple, ignore).read(block)

    assert caught.value.code is (code or Code.ENHANCE_YOUR_CALM)


@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(block):
    try:
        found = HeaderReader(tuple, ignore).read(block)
    except ConnectionFault:
        return
    assert all(isinstance(part, bytes) for field in found for part in field)


@given(st.binary(min_size=1, max_size=400), st.binary(max_size=400))
def test_literals_are_read_by_others(name, value):
    assert list(Decoder().decode(literal(name, value), raw=True)) == [(name, value)]
