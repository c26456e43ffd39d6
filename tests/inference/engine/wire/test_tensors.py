import datetime

import numpy as np
import pytest

from inference.engine.wire import tensors
from inference.engine.wire.tensors import InvalidTensor, Tensor, TensorHeader


def cross(data):
    header, buffer = tensors.encode(Tensor("x", data))
    (received,) = tensors.decode([header], memoryview(buffer))
    assert header.nbytes == len(buffer)
    return header.dtype, received.data


def test_text_bytes_and_json_values_cross():
    texts = tensors.object_array(["a", None])
    values = tensors.object_array([b"\xff", {"k": [1, None]}, [1.5], None, True])

    assert cross(texts)[0] == "str"
    assert cross(texts)[1].tolist() == texts.tolist()
    assert cross(values)[0] == "json"
    assert cross(values)[1].tolist() == values.tolist()


def test_lists_of_one_length_stay_values_of_one_row():
    data = tensors.object_array([[1, 2], [3, 4]])

    assert data.shape == (2,)
    assert cross(data)[1].shape == (2,)


def test_datetimes_cross_with_what_is_missing():
    data = np.array(["2024-02-29T12:00:00", "NaT"], dtype="datetime64[ns]")

    dtype, received = cross(data)

    assert dtype == "datetime64[ns]"
    assert received.astype(str).tolist() == ["2024-02-29T12:00:00.000000000", "NaT"]


@pytest.mark.parametrize(
    "value", [object(), {1: object()}, "\ud800", {"a": "\ud800"}, 2**70]
)
def test_objects_that_cannot_cross_are_refused(value):
    with pytest.raises(InvalidTensor):
        tensors.encode(Tensor("x", tensors.object_array([value, 1])))


def test_nesting_without_end_is_refused_on_both_sides():
    nested = []
    for _ in range(100_000):
        nested = [nested]
    bomb = b"\x91" * 100_000

    with pytest.raises(InvalidTensor):
        tensors.encode(Tensor("x", tensors.object_array([nested])))
    with pytest.raises(InvalidTensor):
        tensors.decode([TensorHeader("x", "json", (1,), len(bomb))], memoryview(bomb))


def test_dtypes_of_signatures_have_one_in_numpy():
    assert tensors.numpy_dtype("bytes") == np.dtype(object)
    assert tensors.numpy_dtype("float32") == np.dtype("float32")
    with pytest.raises(InvalidTensor):
        tensors.numpy_dtype("complex64")


def test_dates_become_what_messagepack_makes_of_them():
    moment = datetime.datetime(2024, 1, 2, tzinfo=datetime.UTC)

    assert cross(tensors.object_array([moment]))[1].tolist() == [moment]


@pytest.mark.parametrize("dtype", ["float32", "int8", "datetime64[ns]"])
def test_large_tensors_cross_without_a_copy_of_their_own(dtype):
    data = np.arange(70_000).reshape(100, 700).astype(dtype)

    header, buffer = tensors.encode(Tensor("x", data))
    [found] = tensors.decode([header], memoryview(bytes(buffer)))

    assert np.shares_memory(np.frombuffer(buffer, np.uint8), data)
    assert found.data.tolist() == data.tolist()


def test_large_tensors_that_lie_otherwise_are_sent_in_order():
    data = np.arange(40_000, dtype="float32").reshape(200, 200).T

    _, buffer = tensors.encode(Tensor("x", data))

    assert np.frombuffer(buffer, "float32").tolist() == data.ravel().tolist()
