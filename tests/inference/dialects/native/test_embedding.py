import base64
import json

import numpy as np
import pytest

from accounts.admission.limits import Limits
from inference.dialects import call_headers
from inference.dialects.dialect import Call, Finished
from inference.dialects.native.embedding import EMBEDDING
from inference.engine.signatures.signature import Column, Layout, Signature, Task
from inference.engine.wire.tensors import Prediction, Tensor
from inference.errors.api_error import ApiError, ErrorCode
from inference.snapshot.contents import CallableModel, CallableVersion
from inference.snapshot.targets import Target

SIGNATURE = Signature(
    layout=Layout.TABLE, columns=(Column("text", dtype="str"),), task=Task.EMBEDDING
)
CALL = Call("embed", call_headers.Head(), EMBEDDING, "m")
LIMITS = Limits(plan="p", rates=())
VECTORS = [[3.0, 4.0], [0.0, 0.0]]


def target_of(signature):
    version = CallableVersion(version=3, signature=signature)
    model = CallableModel(name="m", versions=(version,))
    return Target(model, version, variant="default")


def embed(vectors, *, dtype="float32", **body):
    body = body or {"instances": ["a", "b"]}
    target = target_of(SIGNATURE)
    decoded = EMBEDDING.decode(CALL, target, json.dumps(body).encode(), LIMITS)
    output = Tensor("output", np.array(vectors, dtype))
    result = Prediction((output,), 0, 0, len(vectors))
    finished = Finished(CALL, "req", target, decoded, result, None)
    return json.loads(EMBEDDING.encode(finished)[1])


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_answer_has_one_vector_per_instance(dtype):
    assert embed(VECTORS, dtype=dtype) == {
        "embeddings": VECTORS,
        "dimension": 2,
        "model": {"name": "m", "version": "3", "variant": "default"},
        "request_id": "req",
    }


def test_one_instance_alone_has_one_embedding():
    answer = embed([[1.5, 2.5]], inputs={"text": "a"})

    assert answer["embedding"] == [1.5, 2.5]
    assert "embeddings" not in answer


def test_vectors_may_be_scaled_to_length_one():
    answer = embed(VECTORS, instances=["a", "b"], options={"normalize": True})

    assert answer["embeddings"] == [[0.6, 0.8], [0.0, 0.0]]


def test_base64_is_of_float32_in_little_endian():
    options = {"encoding_format": "base64", "normalize": True}

    answer = embed(VECTORS, dtype=">f8", instances=["a", "b"], options=options)

    raw = [base64.b64decode(text) for text in answer["embeddings"]]
    expected = np.array([[0.6, 0.8], [0, 0]], "<f4")
    assert np.array_equal(np.frombuffer(b"".join(raw), "<f4").reshape(2, 2), expected)


def test_numbers_that_are_not_finite_are_null_and_told():
    answer = embed([[1.0, np.inf], [1.0, 2.0]])

    assert answer["embeddings"] == [[1.0, None], [1.0, 2.0]]
    assert answer["warnings"] == [{"index": 0, "code": "NON_FINITE_OUTPUT"}]


@pytest.mark.parametrize("output", [[1.0, 2.0], [["a"], ["b"]], [[[1.0]]]])
def test_a_model_that_gives_no_vectors_failed(output):
    dtype = object if output == [["a"], ["b"]] else "float32"

    with pytest.raises(ApiError) as caught:
        embed(output, dtype=dtype)

    assert caught.value.code is ErrorCode.MODEL_ERROR


def test_models_of_other_tasks_are_refused_with_advice():
    signature = Signature(layout=Layout.TABLE, columns=SIGNATURE.columns)

    with pytest.raises(ApiError) as caught:
        EMBEDDING.decode(CALL, target_of(signature), b"{}", LIMITS)

    assert caught.value.code is ErrorCode.INVALID_INPUT
    assert "predict" in caught.value.message
