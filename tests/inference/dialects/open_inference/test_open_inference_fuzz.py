"""Any bytes lead to an answer or to an ApiError, never to another exception."""

import json

import hypothesis.strategies as st
import numpy as np
from hypothesis import given, settings

from inference.dialects.open_inference.over_http import JSON_LENGTH, OPEN_INFERENCE
from inference.errors.api_error import ApiError
from tests import torture
from tests.inference.dialects.open_inference.open_inference_calls import (
    LIMITS,
    MATRIX,
    TABLE,
    TENSOR,
    TENSORS,
    call_of,
    raw,
    target_of,
)

TARGETS = [target_of(signature) for signature in (MATRIX, TABLE, TENSOR, TENSORS)]
HEADS = [
    ([raw("input", [2, 2], "FP32", 16)], np.ones((2, 2), "<f4").tobytes()),
    (
        [raw("age", [1], "INT64", 8), raw("city", [1], "BYTES", 5)],
        np.ones(1, "<i8").tobytes() + b"\1\0\0\0a",
    ),
    ([raw("input", [1, 2, 3], "FP32", 24)], np.ones(6, "<f4").tobytes()),
    (
        [raw("ids", [1, 2], "INT64", 16), raw("mask", [1, 2], "INT8", 2)],
        np.ones(2, "<i8").tobytes() + b"\1\0",
    ),
]


def refused_or_read(target, body, length):
    sent = {} if length is None else {JSON_LENGTH.decode(): f"{length}"}
    call = call_of(**sent)
    try:
        decoded = OPEN_INFERENCE.decode(call, target, body, LIMITS)
    except ApiError as error:
        status = error.status
    else:
        status = 200
        assert all(len(tensor.data) == decoded.rows for tensor in decoded.tensors)
    assert status < 500
    return status == 200


def test_bodies_that_are_mutated_later_are_good():
    for target, (inputs, rest) in zip(TARGETS, HEADS, strict=True):
        head = json.dumps({"inputs": inputs}).encode()

        assert refused_or_read(target, head + rest, len(head))


@settings(max_examples=torture.examples(400), deadline=None)
@given(
    kind=st.integers(0, len(TARGETS) - 1),
    cut=st.integers(0, 60),
    length=st.integers(-3, 3),
    flips=st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=4),
    data=st.data(),
)
def test_mutated_binary_bodies_are_refused_or_read(kind, cut, length, flips, data):
    inputs, rest = HEADS[kind]
    odd = st.integers(-(2**66), 2**66) | st.none() | st.text(max_size=3) | st.floats()
    inputs = [
        {**tensor, "shape": data.draw(st.lists(odd, max_size=4))}
        if data.draw(st.integers(0, 3)) == 0
        else tensor
        for tensor in inputs
    ]
    head = json.dumps({"inputs": inputs}).encode()
    body = bytearray(head + rest)
    for place, value in flips:
        body[place % len(body)] = value
    body = bytes(body[: len(body) - cut])

    refused_or_read(TARGETS[kind], body, max(len(head) + length, 0))


@settings(max_examples=torture.examples(200), deadline=None)
@given(
    kind=st.integers(0, len(TARGETS) - 1),
    request=st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats()
        | st.sampled_from(["input", "FP32", "BYTES", "ids", "age"]),
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.dictionaries(
                st.sampled_from(
                    ["inputs", "name", "shape", "datatype", "data", "parameters"]
                ),
                inner,
                max_size=6,
            )
        ),
        max_leaves=30,
    ),
)
def test_any_json_is_refused_or_read(kind, request):
    refused_or_read(TARGETS[kind], json.dumps(request).encode(), None)


@settings(max_examples=torture.examples(200), deadline=None)
@given(body=st.binary(max_size=300), length=st.none() | st.integers(0, 320))
def test_any_bytes_are_refused_or_read(body, length):
    for target in TARGETS:
        refused_or_read(target, body, length)
