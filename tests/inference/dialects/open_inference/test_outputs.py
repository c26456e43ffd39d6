import msgspec
import numpy as np
import pytest

from inference.dialects.open_inference import datatypes as data
from inference.dialects.open_inference import outputs
from inference.dialects.open_inference.messages import OutputParameters, RequestedOutput
from inference.engine.wire.tensors import Tensor
from inference.errors.api_error import ApiError

SCORES = np.array([[0.1, 0.7, 0.2], [0.5, 0.25, 0.25]], "float32")
TENSORS = (Tensor("scores", SCORES), Tensor("other", np.zeros(2)))


def test_all_outputs_come_unless_some_are_named():
    found = outputs.wanted(TENSORS, None, binary=True, labels=())

    assert [(output.name, output.binary) for output in found] == [
        ("scores", True),
        ("other", True),
    ]


def test_named_outputs_come_in_the_order_and_form_of_the_request():
    requested = (
        RequestedOutput("other", OutputParameters(binary_data=True)),
        RequestedOutput("scores"),
    )

    found = outputs.wanted(TENSORS, requested, binary=False, labels=())

    assert [(output.name, output.binary) for output in found] == [
        ("other", True),
        ("scores", False),
    ]


def test_outputs_that_the_model_has_not_are_refused():
    with pytest.raises(ApiError, match="no output `x`"):
        outputs.wanted(TENSORS, (RequestedOutput("x"),), binary=False, labels=())


def test_classification_names_the_best_classes():
    requested = (RequestedOutput("scores", OutputParameters(classification=2)),)

    (found,) = outputs.wanted(
        TENSORS, requested, binary=False, labels=("cat", "dog", "cow")
    )

    assert found.data.tolist() == [
        ["0.700000:1:dog", "0.200000:2:cow"],
        ["0.500000:0:cat", "0.250000:1:dog"],
    ]


def test_classification_without_labels_has_indexes():
    assert outputs.classify(SCORES, 9, ())[1].tolist() == [
        "0.500000:0",
        "0.250000:1",
        "0.250000:2",
    ]


def test_texts_have_no_classification():
    with pytest.raises(ApiError):
        outputs.classify(np.array(["a"], object), 1, ())


def test_a_text_that_the_model_did_not_give_is_null_and_raw_it_is_empty():
    texts = np.array(["a", None, {"b": None}], object)

    assert data.write_json(texts) == b'["a",null,"{\\"b\\":null}"]'
    assert bytes(data.write_raw(texts))[:9] == b"\1\0\0\0a\0\0\0\0"


def test_integers_beyond_64_bits_are_written_with_their_digits():
    """Python models and fixed answers may have such integers; JSON has no limit."""
    (fixed,) = outputs.fixed({"n": [2**64, 1]}, 1)
    given = np.array([{"n": 2**70}], object)

    assert data.write_json(fixed.data) == b'["[18446744073709551616,1]"]'
    assert data.write_json(given) == b'["{\\"n\\":1180591620717411303424}"]'
    assert bytes(data.write_raw(given))[4:] == b'{"n":1180591620717411303424}'


@pytest.mark.parametrize(
    ("prediction", "dtype"),
    [
        (0.1, "float32"),
        ([0.25, 1], "float32"),
        (1234567.89, "float64"),
        ([0.1, 16777217.0], "float64"),
        (1e39, "float64"),
        (2**64 - 1, "uint64"),
    ],
)
def test_a_fixed_answer_keeps_the_digits_it_was_given(prediction, dtype):
    (tensor,) = outputs.fixed(prediction, 2)

    assert tensor.data.dtype == dtype
    written = msgspec.json.decode(data.write_json(tensor.data))
    assert written == list(np.ravel([prediction, prediction]))
