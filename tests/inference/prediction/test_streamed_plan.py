"""Test the plan of a stream, driven by hand."""

import json

import msgspec
import numpy as np
import pytest

from inference.dialects.native.event_stream import KEEP_ALIVE
from inference.engine.signatures.signature import Column, Layout, Signature
from inference.engine.wire.errors import EngineError, EngineErrorCode
from inference.engine.wire.messages import VersionKey
from inference.engine.wire.tensors import Tensor
from inference.errors.api_error import ApiError, ErrorCode
from inference.prediction.effects import (
    NextChunk,
    NoChunk,
    OpenStream,
    SendHead,
    SendPiece,
)
from inference.prediction.streamed_plan import StreamedAnswer, StreamLimits, stream
from inference.snapshot.contents import CallableModel, CallableVersion
from inference.snapshot.targets import Target
from tests.fakes import ManualClock

SIGNATURE = Signature(layout=Layout.TABLE, columns=(Column("text", dtype="str"),))
VERSION = CallableVersion(version=3, signature=SIGNATURE)
TARGET = Target(CallableModel("m", (VERSION,)), VERSION, variant="default")
OPENING = OpenStream(
    VersionKey("m", 3),
    (Tensor("text", np.array(["a"], object)),),
    30.0,
    engines=("cpu",),
)
HEADERS = [(b"content-type", b"text/event-stream")]


class Driver:
    """A driver that returns `chunks` one after the other, and raises the exceptions."""

    def __init__(self, *chunks, limits=None):
        self.clock = ManualClock(0.0)
        self.limits = limits or StreamLimits()
        self.chunks = list(chunks)
        self.head = None
        self.pieces = []
        self.waits = []
        self.patience = []
        self.open = 0

    def run(self):
        call = StreamedAnswer(OPENING, TARGET, "req", HEADERS, self.clock)
        steps = stream(call, self.limits)
        step, value = steps.send, None
        try:
            while True:
                effect = step(value)
                step = steps.send
                try:
                    value = self.perform(effect)
                except (ApiError, EngineError) as error:
                    step, value = steps.throw, error
        except StopIteration as stop:
            return stop.value

    def perform(self, effect):
        match effect:
            case OpenStream():
                self.open = self.limits.shares.used
                return "stream"
            case NextChunk("stream", wait_s):
                self.waits.append(wait_s)
                chunk = self.chunks.pop(0) if self.chunks else NoChunk.ENDED
                if isinstance(chunk, Exception):
                    raise chunk
                if chunk is NoChunk.NOTHING_YET:
                    self.clock.advance(wait_s)
                return chunk
            case SendHead():
                self.head = effect.headers
            case SendPiece():
                assert self.head is not None
                self.pieces.append(effect.data)
                self.patience.append(effect.timeout_s)
        return None


def test_each_chunk_is_an_event_and_the_end_tells_the_usage():
    driver = Driver("a\n", None, {"b": 1})

    end = driver.run()

    assert driver.head == HEADERS
    assert driver.pieces == [
        b'id: 0\ndata: {"chunk":"a\\n"}\n\n',
        b'id: 1\ndata: {"chunk":null}\n\n',
        b'id: 2\ndata: {"chunk":{"b":1}}\n\n',
    ]
    assert end.startswith(b"event: end\ndata: ")
    assert end.endswith(b"\n\n")
    assert json.loads(end.partition(b"data: ")[2]) == {
        "model": {"name": "m", "version": "3", "variant": "default"},
        "usage": {"rows": 1, "chunks": 3, "total_ms": 0.0},
        "request_id": "req",
    }


def test_a_stream_without_chunks_has_only_its_end():
    driver = Driver()

    assert driver.run().startswith(b"event: end")
    assert driver.head == HEADERS
    assert driver.pieces == []


def test_a_silent_model_keeps_the_connection_alive_until_the_deadline():
    driver = Driver(NoChunk.NOTHING_YET, NoChunk.NOTHING_YET, "late")

    with pytest.raises(ApiError) as caught:
        driver.run()

    assert caught.value.code is ErrorCode.INFERENCE_TIMEOUT
    assert driver.waits == [15.0, 15.0]
    assert driver.pieces == [KEEP_ALIVE]


def test_what_fails_before_the_first_chunk_is_raised_before_the_head():
    driver = Driver(EngineError(EngineErrorCode.MODEL_ERROR, "secret"))

    with pytest.raises(EngineError):
        driver.run()

    assert driver.head is None


def test_models_that_do_not_stream_are_refused_with_advice():
    driver = Driver(EngineError(EngineErrorCode.BAD_REQUEST, "it has no stream"))

    with pytest.raises(ApiError) as caught:
        driver.run()

    assert caught.value.code is ErrorCode.INVALID_INPUT
    assert caught.value.message == (
        "This cannot be streamed: it has no stream. Call predict."
    )


def test_a_client_has_to_take_what_is_sent_at_a_least_rate():
    driver = Driver("a", "x" * 81_000)

    driver.run()

    assert driver.patience == [pytest.approx(10, abs=0.1), pytest.approx(20, abs=0.2)]


def test_a_customer_who_floods_leaves_streams_for_others():
    limits = StreamLimits(max_streams=4)

    def begin(customer_id):
        opening = msgspec.structs.replace(OPENING, customer_id=customer_id)
        call = StreamedAnswer(opening, TARGET, "r", HEADERS, lambda: 0)
        steps = stream(call, limits)
        next(steps)
        return steps

    flood = [begin(1), begin(1)]
    with pytest.raises(ApiError) as caught:
        begin(1)
    once = begin(2)

    assert caught.value.code is ErrorCode.OVERLOADED
    assert "You have 2 streams open" in caught.value.message
    for steps in (*flood, once):
        steps.close()
    assert limits.shares.used == 0


def test_streams_are_bounded_and_counted_down_however_they_end():
    limits = StreamLimits(max_streams=1)
    failing = Driver(EngineError(EngineErrorCode.MODEL_ERROR, ""), limits=limits)
    with pytest.raises(EngineError):
        failing.run()
    assert (failing.open, limits.shares.used) == (1, 0)

    abandoned = stream(StreamedAnswer(OPENING, TARGET, "r", HEADERS, lambda: 0), limits)
    next(abandoned)
    with pytest.raises(ApiError) as caught:
        Driver(limits=limits).run()
    abandoned.close()

    assert caught.value.code is ErrorCode.OVERLOADED
    assert caught.value.retry_after_s > 0
    assert limits.shares.used == 0
