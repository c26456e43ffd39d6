import contextlib
import itertools
import struct

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.engine.wire import frames, tensors
from inference.engine.wire.frames import ForeignFormat, FrameDecoder, MalformedFrame
from inference.engine.wire.messages import Cancel, GetStatus, TensorHeader
from inference.engine.wire.tensors import Tensor


@given(
    bodies=st.lists(st.binary(max_size=200), max_size=6),
    cuts=st.lists(st.integers(0, 2000), max_size=20),
)
def test_frames_survive_any_chopping(bodies: list[bytes], cuts: list[int]) -> None:
    stream = b"".join(
        frames.encode(Cancel(index), body) for index, body in enumerate(bodies)
    )
    decoder = FrameDecoder()
    points = sorted({0, len(stream), *(cut for cut in cuts if cut < len(stream))})

    received = [
        (frames.decode_request(frame.header), bytes(frame.body))
        for start, stop in itertools.pairwise(points)
        for frame in decoder.feed(stream[start:stop])
    ]

    assert received == [(Cancel(index), body) for index, body in enumerate(bodies)]


def test_a_frame_over_the_bound_is_refused_before_it_arrives() -> None:
    decoder = FrameDecoder(max_frame_bytes=100)

    with pytest.raises(MalformedFrame):
        decoder.feed(struct.pack("<IBI", 101, 1, 1))


def test_a_header_longer_than_its_frame_is_refused() -> None:
    with pytest.raises(MalformedFrame):
        FrameDecoder().feed(struct.pack("<IBI", 10, 1, 6))


def test_a_frame_of_another_format_is_refused_in_words_before_it_is_read() -> None:
    foreign = struct.pack("<IBI", 10, 2, 5)

    with pytest.raises(ForeignFormat) as refused:
        FrameDecoder().feed(foreign)

    assert str(refused.value) == "its messages have format 2, and this code reads 1"


@given(st.binary(max_size=100))
def test_no_bytes_as_a_header_raise_anything_else(header: bytes) -> None:
    with contextlib.suppress(MalformedFrame):
        frames.decode_request(memoryview(header))


@given(st.binary(max_size=300))
def test_no_stream_raises_anything_else(stream: bytes) -> None:
    with contextlib.suppress(MalformedFrame):
        FrameDecoder().feed(stream)


@pytest.mark.parametrize(
    "data",
    [
        np.arange(6, dtype=np.float32).reshape(2, 3),
        np.array([True, False]),
        np.zeros((2, 0), dtype=np.int64),
        np.array(["München", "", "\N{SNOWMAN}"], dtype=object),
        np.array([["a", None], ["b", "c"]], dtype=object),
    ],
)
def test_tensors_arrive_as_they_left(data: np.ndarray) -> None:
    header, buffer = tensors.encode(Tensor("x", data))

    (received,) = tensors.decode([header], memoryview(buffer))

    assert received.name == "x"
    assert received.data.dtype == data.dtype
    assert received.data.tolist() == data.tolist()


@pytest.mark.parametrize(
    ("header", "body"),
    [
        (TensorHeader("x", "float32", (2,), 4), b"1234"),
        (TensorHeader("x", "float32", (1,), 8), b"1234"),
        (TensorHeader("x", "float32", (1,), -4), b""),
        (TensorHeader("x", "float32", (-1, -1), 4), b"1234"),
        (TensorHeader("x", "float32", (-1,), 4), b"1234"),
        (TensorHeader("x", "float32", (1,), 4), b"12345"),
        (TensorHeader("x", "object", (1,), 8), b"12345678"),
        (TensorHeader("x", "V8", (1,), 8), b"12345678"),
        (TensorHeader("x", "str", (2,), 2), msgspec.msgpack.encode(["a"])),
        (TensorHeader("x", "str", (1,), 2), msgspec.msgpack.encode([7])),
        (TensorHeader("x", "str", (1,), 3), b"\x91\xa1\xff"),
        (TensorHeader("x", "float32", (2**70, 0), 0), b""),
    ],
)
def test_headers_that_lie_about_their_buffers_are_refused(
    header: TensorHeader, body: bytes
) -> None:
    with pytest.raises(MalformedFrame):
        frames.decode_tensors([header], memoryview(body))


def test_arrays_of_objects_never_cross_as_memory() -> None:
    with pytest.raises(tensors.InvalidTensor):
        tensors.encode(Tensor("x", np.array([1 + 2j])))


def test_a_status_request_takes_few_bytes() -> None:
    assert len(frames.encode(GetStatus(1))) < 40
