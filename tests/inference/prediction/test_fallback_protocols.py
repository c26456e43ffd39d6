"""Test fallback answers in each protocol and as a stream, and their log lines."""

import base64
import json

import msgspec
import numpy as np
import pytest
from structlog.testing import capture_logs

from inference.dialects.mlflow.scoring import MLFLOW
from inference.dialects.native.embedding import EMBEDDING
from inference.dialects.native.event_stream import EVENT_STREAM
from inference.dialects.open_inference.open_inference_pb2 import (
    ModelInferRequest,
    ModelInferResponse,
)
from inference.dialects.open_inference.over_grpc import OPEN_INFERENCE_GRPC
from inference.dialects.open_inference.over_http import OPEN_INFERENCE
from inference.engine.signatures.signature import Task
from inference.engine.wire.errors import EngineError, EngineErrorCode
from inference.prediction.effects import (
    NextChunk,
    NoChunk,
    OpenStream,
    SendHead,
    SendPiece,
)
from inference.snapshot.contents import FixedAnswer
from tests.inference.prediction.test_plan import GOOD, SIGNATURE, code, read
from tests.inference.prediction.test_plan_fallback import (
    UNKNOWN,
    FailingDriver,
    falling_back,
    header,
)

OVERLOADED = {2: EngineErrorCode.OVERLOADED}
TWO_ROWS = {
    "id": "mine",
    "inputs": [
        {"name": "input", "shape": [2, 2], "datatype": "FP32", "data": [1, 2, 3, 4]}
    ],
}


def fixed(prediction, **fallback):
    published = falling_back(answer=FixedAnswer(prediction), **fallback)
    return FailingDriver(published, OVERLOADED)


class StreamingDriver(FailingDriver):
    """A driver whose working versions stream two words; it keeps all that is sent."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.head = None
        self.sent = b""
        self.breaks = False

    def perform(self, effect):
        match effect:
            case OpenStream():
                if effect.key.version in self.failing:
                    raise EngineError(self.failing[effect.key.version], "no")
                return iter(["so ", "good"])
            case NextChunk() if self.breaks and self.sent:
                raise EngineError(EngineErrorCode.MODEL_ERROR, "broke")
            case NextChunk():
                return next(effect.stream, NoChunk.ENDED)
            case SendHead():
                self.head = dict(effect.headers)
                return None
            case SendPiece():
                self.sent += effect.data
                return None
        return super().perform(effect)

    def stream(self):
        return self.call(dialect=EVENT_STREAM, operation="stream")


def test_a_fixed_answer_in_mlflows_protocol():
    answer = fixed(UNKNOWN).call(
        {"dataframe_records": GOOD["instances"]}, dialect=MLFLOW
    )

    assert read(answer) == {"predictions": [UNKNOWN]}
    assert header(answer, b"x-fallback") == b"fixed"


@pytest.mark.parametrize(
    ("prediction", "outputs"),
    [
        (0.5, [("output", "FP32", [2], [0.5, 0.5])]),
        (7, [("output", "INT64", [2], [7, 7])]),
        ([0.5, 1], [("output", "FP32", [2, 2], [0.5, 1.0, 0.5, 1.0])]),
        ("unknown", [("output", "BYTES", [2], ["unknown", "unknown"])]),
        (["a", 1], [("output", "BYTES", [2], ['["a",1]', '["a",1]'])]),
        (
            UNKNOWN,
            [
                ("label", "BYTES", [2], ["unknown", "unknown"]),
                ("score", "BYTES", [2], [None, None]),
            ],
        ),
    ],
)
def test_a_fixed_answer_as_tensors(prediction, outputs):
    answer = fixed(prediction).call(TWO_ROWS, dialect=OPEN_INFERENCE)

    found = read(answer)
    assert found["model_name"] == "cancer"
    assert "model_version" not in found
    assert found["parameters"] == {"fallback": True, "fallback_reason": "OVERLOADED"}
    assert found["id"] == "mine"
    assert [
        (one["name"], one["datatype"], one["shape"], one["data"])
        for one in found["outputs"]
    ] == outputs


def test_a_fixed_answer_as_raw_tensors():
    body = TWO_ROWS | {"parameters": {"binary_data_output": True}}

    answer = fixed(0.5).call(body, dialect=OPEN_INFERENCE)

    size = int(header(answer, b"inference-header-content-length"))
    assert np.frombuffer(answer.body[size:], "<f4").tolist() == [0.5, 0.5]


def test_who_asks_for_another_output_than_the_fixed_one_gets_the_error():
    body = TWO_ROWS | {"outputs": [{"name": "embedding"}]}

    answer = fixed(0.5).call(body, dialect=OPEN_INFERENCE)

    assert answer.status == 503
    assert json.loads(answer.body)["error"].startswith("OVERLOADED: ")


def test_a_fixed_answer_over_grpc():
    message = ModelInferRequest(model_name="cancer", id="mine")
    message.inputs.add(name="input", datatype="FP32", shape=[1, 2])
    message.inputs[0].contents.fp32_contents.extend([1, 2])
    driver = fixed(0.5)
    driver.message = message
    # A gRPC body is a message that is parsed already.
    read_body = driver.perform
    driver.perform = lambda effect: (
        message if type(effect).__name__ == "NeedBody" else read_body(effect)
    )

    answer = driver.call({}, dialect=OPEN_INFERENCE_GRPC)

    response = ModelInferResponse.FromString(answer.body)
    assert (response.model_name, response.model_version) == ("cancer", "")
    assert response.id == "mine"
    assert response.parameters["fallback"].bool_param
    assert response.parameters["fallback_reason"].string_param == "OVERLOADED"
    assert np.frombuffer(response.raw_output_contents[0], "<f4").tolist() == [0.5]


def embedding(prediction):
    driver = fixed(prediction)
    model, *others = driver.tables.as_snapshot().models
    signature = msgspec.structs.replace(SIGNATURE, task=Task.EMBEDDING, labels=())
    versions = tuple(
        msgspec.structs.replace(version, signature=signature)
        for version in model.versions
    )
    model = msgspec.structs.replace(model, versions=versions)
    published = msgspec.structs.replace(
        driver.tables.as_snapshot(), models=(model, *others)
    )
    return FailingDriver(published, OVERLOADED)


def test_a_fixed_vector_is_every_instances_embedding():
    body = GOOD | {"options": {"normalize": True, "encoding_format": "base64"}}

    answer = embedding([3, 4]).call(body, dialect=EMBEDDING, operation="embed")

    found = read(answer)
    assert found["dimension"] == 2
    assert found["model"]["fallback"]
    vector = np.frombuffer(base64.b64decode(found["embeddings"][0]), "<f4")
    assert vector.tolist() == pytest.approx([0.6, 0.8])


@pytest.mark.parametrize("prediction", [UNKNOWN, [], ["a"], 0.5])
def test_what_is_no_vector_is_nobodys_embedding(prediction):
    answer = embedding(prediction).call(GOOD, dialect=EMBEDDING, operation="embed")

    assert code(answer) == (503, "OVERLOADED")


def test_a_stream_comes_from_the_fallback_version():
    driver = StreamingDriver(falling_back(version=1), OVERLOADED)

    answer = driver.stream()

    assert driver.head[b"x-fallback"] == b"version"
    assert driver.head[b"x-model-version"] == b"1"
    assert driver.sent.count(b"data: ") == 2
    assert b'"fallback_reason":"OVERLOADED"' in answer.body
    assert (answer.event.version, answer.event.fallback) == ("1", "version")
    assert answer.event.charged


def test_a_fixed_answer_is_a_stream_of_one_chunk():
    published = falling_back(version=1, answer=FixedAnswer(UNKNOWN))
    driver = StreamingDriver(published, OVERLOADED | {1: EngineErrorCode.LOADING})

    answer = driver.stream()

    assert driver.head[b"x-fallback"] == b"fixed"
    assert b"x-model-version" not in driver.head
    assert driver.sent == (
        b'id: 0\ndata: {"chunk":{"label":"unknown","score":null}}\n\n'
    )
    assert answer.body.startswith(b"event: end\n")
    assert (answer.event.status, answer.event.fallback) == (200, "fixed")
    assert (answer.event.charged, answer.event.compute_us) == (False, 0)


def test_a_stream_without_a_fallback_has_its_own_error():
    driver = StreamingDriver(
        falling_back(on=("MODEL_ERROR",), answer=FixedAnswer(UNKNOWN)), OVERLOADED
    )

    assert code(driver.stream()) == (503, "OVERLOADED")
    assert driver.head is None


def test_nothing_stands_in_for_a_stream_that_has_begun():
    driver = StreamingDriver(falling_back(answer=FixedAnswer(UNKNOWN)), {})
    driver.breaks = True

    answer = driver.stream()

    assert (answer.status, answer.event.fallback) == (500, "")
    assert driver.sent.count(b"data: ") == 1


def test_fallbacks_are_logged_at_once_and_then_ten_seconds_of_them_together():
    driver = fixed(UNKNOWN)

    with capture_logs() as logs:
        for _ in range(3):
            driver.call()
        driver.clock.advance(10)
        driver.call()

    assert [(one["event"], one["log_level"], one["calls"]) for one in logs] == [
        ("fallback_answered", "warning", 1),
        ("fallback_answered", "warning", 3),
    ]
    assert (logs[0]["model"], logs[0]["fallback"], logs[0]["reason"]) == (
        "cancer",
        "fixed",
        "OVERLOADED",
    )
