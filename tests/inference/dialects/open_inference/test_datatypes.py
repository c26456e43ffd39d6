import json

import msgspec
import numpy as np
import pytest

from inference.dialects.open_inference import datatypes as data
from inference.dialects.open_inference.datatypes import InvalidData
from inference.errors.api_error import ApiError, ErrorCode

NUMBERS = {
    "INT8": "int8",
    "INT16": "int16",
    "INT32": "int32",
    "INT64": "int64",
    "UINT8": "uint8",
    "UINT16": "uint16",
    "UINT32": "uint32",
    "UINT64": "uint64",
    "FP16": "float16",
    "FP32": "float32",
    "FP64": "float64",
}


def read_raw(datatype, buffer, count, *, offset=0):
    return data.read_raw(
        datatype, buffer, offset=offset, nbytes=len(buffer) - offset, count=count
    )


def read_json(datatype, value, shape):
    return data.read_json(datatype, msgspec.Raw(json.dumps(value).encode()), shape)


@pytest.mark.parametrize(("datatype", "dtype"), NUMBERS.items())
def test_numbers_go_there_and_back_as_raw_bytes(datatype, dtype):
    sent = np.array([0, 1, 100, 127], dtype)

    found = read_raw(datatype, b"x" + bytes(data.write_raw(sent)), 4, offset=1)

    assert found.dtype == sent.dtype
    assert found.tolist() == sent.tolist()
    assert data.datatype_of_array(found) == datatype
    assert data.datatype_of(dtype) == datatype


@pytest.mark.parametrize(("datatype", "dtype"), NUMBERS.items())
@pytest.mark.parametrize("value", [[1, 2, 3, 4], [[1, 2], [3, 4]]])
def test_numbers_are_read_from_json_flat_or_nested(datatype, dtype, value):
    found = read_json(datatype, value, (2, 2))

    assert found.dtype == np.dtype(dtype)
    assert found.tolist() == [1, 2, 3, 4]


def test_raw_numbers_share_the_body():
    body = np.arange(4, dtype="float32").tobytes()

    found = read_raw("FP32", body, 4)

    assert np.shares_memory(found, np.frombuffer(body, np.uint8))


def test_bf16_is_read_as_float32():
    # The upper half of each float32.
    sent = np.array([1.5, -2.0, 0.0], "<f4").view("<u2")[1::2].tobytes()

    found = read_raw("BF16", sent, 3)

    assert found.dtype == np.float32
    assert found.tolist() == [1.5, -2.0, 0.0]


def test_bool_and_bytes_go_there_and_back():
    flags = np.array([True, False])
    texts = np.array(["ä", "", "x" * 300], object)

    assert read_raw("BOOL", bytes(data.write_raw(flags)), 2).tolist() == [True, False]
    assert read_raw("BYTES", data.write_raw(texts), 3).tolist() == texts.tolist()
    assert read_json("BOOL", [True, False], (2,)).tolist() == [True, False]
    assert read_json("BYTES", [["a"], ["b"]], (2, 1)).tolist() == ["a", "b"]


@pytest.mark.parametrize(
    ("datatype", "buffer", "count"),
    [
        ("FP32", b"\0" * 7, 2),
        ("FP32", b"\0" * 12, 2),
        ("FP32", b"\0" * 8, 2**62),
        ("BF16", b"\0" * 5, 2),
        ("BOOL", b"\0\2", 2),
        ("BYTES", b"\5\0\0\0abcd", 1),
        ("BYTES", b"\1\0\0\0ab", 1),
        ("BYTES", b"\1\0\0\0a", 2**40),
        ("BYTES", b"\1\0\0", 1),
        ("BYTES", b"\1\0\0\0\xff", 1),
        ("BYTES", b"\xff\xff\xff\xff", 1),
    ],
)
def test_raw_bytes_that_do_not_fit_are_refused(datatype, buffer, count):
    with pytest.raises(InvalidData):
        read_raw(datatype, buffer, count)


@pytest.mark.parametrize(
    ("datatype", "value", "shape"),
    [
        ("FP32", [1, 2, 3], (2,)),
        ("FP32", [[1, 2], [3]], (2, 2)),
        ("FP32", [[1, 2]], (2,)),
        ("FP32", [[[1]]], (1, 1)),
        ("FP32", "x", (1,)),
        ("FP32", None, (1,)),
        ("FP32", [None], (1,)),
        ("FP32", ["1"], (1,)),
        ("FP32", [True], (1,)),
        ("INT64", [1.5], (1,)),
        ("BOOL", [1], (1,)),
        ("BYTES", [1], (1,)),
        ("FP32", {"a": 1}, (1,)),
    ],
)
def test_json_that_does_not_fit_is_refused(datatype, value, shape):
    with pytest.raises(InvalidData):
        read_json(datatype, value, shape)


@pytest.mark.parametrize(
    ("datatype", "text", "count"),
    [
        ("FP32", b"[1e39]", 1),
        ("FP32", b"[" + b",".join([b"1e39"] * 2000) + b"]", 2000),
        ("FP64", b"[1e999]", 1),
        ("FP16", b"[70000]", 1),
        ("INT8", b"[128]", 1),
        ("UINT64", b"[18446744073709551616]", 1),
        ("UINT64", b"[%b]" % b",".join([b"18446744073709551616"] * 2000), 2000),
        ("UINT64", b"[-1]", 1),
        ("UINT32", b"[-1]", 1),
        ("INT64", b"[9223372036854775808]", 1),
    ],
)
def test_numbers_out_of_range_are_unprocessable(datatype, text, count):
    with pytest.raises(ApiError) as caught:
        data.read_json(datatype, msgspec.Raw(text), (count,))

    assert caught.value.code is ErrorCode.UNPROCESSABLE


@pytest.mark.parametrize("count", [1, 2000])
def test_unsigned_integers_have_all_64_bits(count):
    greatest = 2**64 - 1
    text = b"[%b]" % b",".join([b"%d" % greatest] * count)

    read = data.read_json("UINT64", msgspec.Raw(text), (count,))

    assert read.dtype == np.uint64
    assert set(read.tolist()) == {greatest}


def test_outputs_in_json_are_flat_and_short():
    sent = np.array([[0.98, np.nan], [np.inf, 1]], "float32")

    assert data.write_json(sent) == b"[0.98,null,null,1.0]"
    assert data.write_json(sent.T) == b"[0.98,null,null,1.0]"
    assert data.write_json(np.array([["a", {"b": 1}]], object)) == (
        b'["a","{\\"b\\":1}"]'
    )


def test_outputs_that_lie_otherwise_are_written_in_row_major_order():
    sent = np.arange(6, dtype=">f4").reshape(2, 3).T

    found = np.frombuffer(data.write_raw(sent), "<f4")

    assert found.tolist() == sent.ravel().tolist()


def test_integers_may_be_written_as_whole_floats_as_far_as_these_are_exact():
    assert read_json("INT64", [3.0, 2**53 - 1.0, 2**53 + 1], (3,)).tolist() == [
        3,
        2**53 - 1,
        2**53 + 1,
    ]
    for written in ("9007199254740993.0", "1e300"):
        with pytest.raises(InvalidData, match="with a point or an exponent"):
            data.read_json("INT64", msgspec.Raw(f"[{written}]".encode()), (1,))
