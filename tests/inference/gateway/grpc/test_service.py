"""The gRPC port of a whole gateway, called with the messages of the standard."""

import asyncio
import contextlib

import grpc
import msgspec
import numpy as np
import pytest
from grpc import aio

from accounts.admission.limits import Limits, Rate
from inference.dialects.open_inference import open_inference_pb2 as messages
from inference.engine.signatures.signature import Column, Layout, Signature
from inference.engine.wire.errors import EngineError, EngineErrorCode
from inference.gateway.grpc.server import GrpcServer, GrpcSettings, PortTaken
from tests.inference.gateway.http2.peer import on_loop
from tests.inference.gateway.plant import KEY, OTHER_KEY, Plant, published

SERVICE = "/inference.GRPCInferenceService/"
WITH_KEY = (("authorization", f"Bearer {KEY.token}"),)


def request(values=(1.5,), *, raw=True, model="m", **members):
    """Ask for one prediction per value."""
    made = messages.ModelInferRequest(model_name=model, **members)
    tensor = made.inputs.add(name="input", datatype="FP32", shape=[len(values), 1])
    if raw:
        made.raw_input_contents.append(np.array(values, "<f4").tobytes())
    else:
        tensor.contents.fp32_contents.extend(values)
    return made


def outputs(response):
    return [
        np.frombuffer(raw, "<f4").reshape(tensor.shape).tolist()
        for tensor, raw in zip(
            response.outputs, response.raw_output_contents, strict=True
        )
    ]


class Client:
    def __init__(self, channel):
        self.channel = channel

    def call(self, method, message, *, metadata=WITH_KEY, **options):
        answer = getattr(messages, f"{method}Response")
        return self.channel.unary_unary(
            SERVICE + method,
            request_serializer=lambda m: (
                m if isinstance(m, bytes) else m.SerializeToString()
            ),
            response_deserializer=answer.FromString,
        )(message, metadata=metadata, **options)

    def infer(self, message=None, **options):
        return self.call("ModelInfer", message or request(), **options)

    def stream(self, metadata=WITH_KEY):
        return self.channel.stream_stream(
            SERVICE + "ModelStreamInfer",
            request_serializer=messages.ModelInferRequest.SerializeToString,
            response_deserializer=messages.ModelStreamInferResponse.FromString,
        )(metadata=metadata)


def _written(message):
    return message if isinstance(message, bytes) else message.SerializeToString()


@contextlib.asynccontextmanager
async def serving(plant, **settings):
    """Yield a client of the plant's gRPC port."""
    settings = {"max_message_bytes": 1024 * 1024} | settings
    server = GrpcServer(plant.driver, GrpcSettings(**settings))
    await server.start()
    try:
        async with aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            yield Client(channel)
    finally:
        await server.stop(1)


async def refusal(call):
    with pytest.raises(aio.AioRpcError) as caught:
        await call
    return caught.value


@pytest.mark.parametrize("raw", [True, False])
@on_loop
async def test_infer_is_answered_and_metered(tmp_path, raw):
    plant = Plant(tmp_path)

    async with serving(plant) as client:
        call = client.infer(request([1, 2], raw=raw, id="7"))
        response = await call
        trailing = dict(await call.trailing_metadata())

    assert (response.model_name, response.model_version) == ("m", "1")
    assert response.id == "7"
    assert outputs(response) == [[[2.0], [4.0]]]
    assert trailing["x-request-id"].startswith("req_")
    assert trailing["x-model-version"] == "1"
    assert trailing["ratelimit"].startswith('"burst";r=999;t=')
    [event] = plant.events()
    assert (event.operation, event.status, event.rows) == ("predict", 200, 2)


@pytest.mark.parametrize("blanks", ["", " "])
@on_loop
async def test_api_key_may_come_by_its_own_name(tmp_path, blanks):
    async with serving(Plant(tmp_path)) as client:
        response = await client.infer(metadata=(("x-api-key", KEY.token + blanks),))

    assert outputs(response) == [[[3.0]]]


@pytest.mark.parametrize("name", ["authorization", "x-api-key"])
@on_loop
async def test_a_key_that_comes_twice_is_refused(tmp_path, name):
    plant = Plant(tmp_path)
    twice = ((name, f"Bearer {KEY.token}"), (name, f"Bearer {OTHER_KEY.token}"))

    async with serving(plant) as client:
        error = await refusal(client.infer(metadata=twice))

    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "once" in error.details()


@pytest.mark.parametrize(
    "metadata",
    [(), (("authorization", "Bearer my_live_nobody"),), (("x-api-key", ""),)],
)
@pytest.mark.parametrize("method", ["ModelInfer", "ModelReady", "ModelMetadata"])
@on_loop
async def test_callers_without_a_key_are_refused(tmp_path, method, metadata):
    plant = Plant(tmp_path)

    async with serving(plant) as client:
        error = await refusal(client.call(method, b"", metadata=metadata))

    assert error.code() is grpc.StatusCode.UNAUTHENTICATED
    assert plant.metrics.unauthenticated == 1


@on_loop
async def test_large_messages_of_strangers_are_not_read(tmp_path):
    async with serving(Plant(tmp_path)) as client:
        large = request([1] * 200_000)

        error = await refusal(client.infer(large, metadata=()))

    assert error.code() is grpc.StatusCode.UNAUTHENTICATED


@on_loop
async def test_messages_beyond_the_limit_are_refused(tmp_path):
    async with serving(Plant(tmp_path)) as client:
        error = await refusal(client.infer(request([1] * 300_000)))

    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


@pytest.mark.parametrize(
    ("message", "code"),
    [
        (request(model="other"), grpc.StatusCode.NOT_FOUND),
        (request(model=""), grpc.StatusCode.NOT_FOUND),
        (request(model_version="9"), grpc.StatusCode.NOT_FOUND),
        (messages.ModelInferRequest(model_name="m"), grpc.StatusCode.INVALID_ARGUMENT),
        (request([np.nan]), grpc.StatusCode.INVALID_ARGUMENT),
        (request([np.inf], raw=False), grpc.StatusCode.INVALID_ARGUMENT),
        (b"\xff\xff\xff", grpc.StatusCode.INVALID_ARGUMENT),
    ],
)
@on_loop
async def test_what_cannot_be_answered_is_refused(tmp_path, message, code):
    async with serving(Plant(tmp_path)) as client:
        error = await refusal(client.infer(message))

    assert error.code() is code


@on_loop
async def test_messages_that_grow_beyond_the_limit_are_refused(tmp_path):
    # It is sent in about ten kilobytes.
    bomb = request([0] * 2_000_000)

    async with serving(Plant(tmp_path)) as client:
        error = await refusal(client.infer(bomb, compression=grpc.Compression.Gzip))

    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


def tampered(change):
    message = request()
    change(message)
    return message


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m.inputs[0].shape.append(-1),
        lambda m: m.inputs[0].shape.extend([1] * 50),
        lambda m: m.inputs[0].ClearField("shape"),
        lambda m: m.inputs[0].shape.__setitem__(0, 2**62),
        lambda m: m.inputs[0].contents.fp32_contents.append(1),
        lambda m: setattr(m.inputs[0], "datatype", "FP64"),
        lambda m: setattr(m.inputs[0], "name", "other"),
        lambda m: m.raw_input_contents.append(b""),
        lambda m: m.raw_input_contents.__setitem__(0, b"123"),
        lambda m: m.ClearField("raw_input_contents"),
        lambda m: m.outputs.add(name="other"),
        lambda m: m.outputs.add(name="output").parameters["x"],
        lambda m: m.parameters["sequence_id"],
    ],
)
@on_loop
async def test_messages_that_make_no_sense_are_refused(tmp_path, change):
    async with serving(Plant(tmp_path)) as client:
        error = await refusal(client.infer(tampered(change)))

    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert error.details().startswith("INVALID_INPUT: ")


@on_loop
async def test_limits_say_when_to_come_back(tmp_path):
    plant = Plant(tmp_path, limits=Limits(plan="p", rates=(Rate("burst", 1, 60),)))

    async with serving(plant) as client:
        await client.infer()
        error = await refusal(client.infer())

    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    trailing = dict(error.trailing_metadata())
    assert int(trailing["retry-after"]) > 0
    assert trailing["x-ratelimit-remaining"] == "0"
    assert [event.status for event in plant.events()] == [200, 429]


@pytest.mark.parametrize(
    ("failure", "code"),
    [
        (EngineErrorCode.OVERLOADED, grpc.StatusCode.UNAVAILABLE),
        (EngineErrorCode.DEADLINE_EXCEEDED, grpc.StatusCode.DEADLINE_EXCEEDED),
        (EngineErrorCode.MODEL_ERROR, grpc.StatusCode.INTERNAL),
    ],
)
@on_loop
async def test_failures_of_the_engine_have_their_status(tmp_path, failure, code):
    plant = Plant(tmp_path)
    plant.engine.failure = EngineError(failure, "secret", retry_after_ms=2500)

    async with serving(plant) as client:
        error = await refusal(client.infer())

    assert error.code() is code
    assert "secret" not in error.details()
    if code is grpc.StatusCode.UNAVAILABLE:
        assert dict(error.trailing_metadata())["retry-after"] == "3"


@on_loop
async def test_deadline_of_the_call_is_that_of_the_engine(tmp_path):
    plant = Plant(tmp_path)
    seen = []
    answer = plant.engine.predict

    async def predict(call):
        seen.append(call.timeout_s)
        return await answer(call)

    plant.engine.predict = predict

    async with serving(plant) as client:
        await client.infer(timeout=5)

    assert 3 < seen[0] < 6


@on_loop
async def test_a_client_that_leaves_gives_back_what_it_held(tmp_path):
    plant = Plant(tmp_path, limits=Limits(plan="p", rates=(), max_concurrency=1))
    plant.engine.hold = asyncio.Event()

    async with serving(plant) as client:
        left = client.infer()
        while not plant.engine.calls:
            await asyncio.sleep(0.01)
        left.cancel()
        while not plant.metrics.abandoned:
            await asyncio.sleep(0.01)
        plant.engine.hold = None
        response = await client.infer()

    assert outputs(response) == [[[3.0]]]


@on_loop
async def test_stream_answers_in_order_and_goes_on_after_an_error(tmp_path):
    plant = Plant(tmp_path)

    async with serving(plant) as client:
        stream = client.stream()
        for message in (request([1], id="a"), request(model="x", id="b"), request([3])):
            await stream.write(message)
        await stream.done_writing()
        answers = [answer async for answer in stream]

    assert [answer.infer_response.id for answer in answers] == ["a", "b", ""]
    assert [outputs(answer.infer_response) for answer in answers] == [
        [[[2.0]]],
        [],
        [[[6.0]]],
    ]
    assert answers[1].error_message.startswith("NOT_FOUND: ")
    assert [event.status for event in plant.events()] == [200, 404, 200]


@on_loop
async def test_stream_without_a_key_ends_at_once(tmp_path):
    async with serving(Plant(tmp_path)) as client:
        error = await refusal(client.stream(metadata=()).read())

    assert error.code() is grpc.StatusCode.UNAUTHENTICATED


@on_loop
async def test_an_idle_stream_does_not_hold_up_the_end(tmp_path):
    plant = Plant(tmp_path)
    server = GrpcServer(plant.driver, GrpcSettings(max_message_bytes=1024))
    await server.start()
    async with aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        stream = Client(channel).stream()
        await stream.write(request())
        first = await stream.read()

        await asyncio.wait_for(server.stop(60), 30)
        error = await refusal(stream.read())

    assert outputs(first.infer_response) == [[[3.0]]]
    assert error.code() is grpc.StatusCode.UNAVAILABLE


@on_loop
async def test_a_call_under_way_is_finished_at_the_end(tmp_path):
    plant = Plant(tmp_path)
    plant.engine.hold = asyncio.Event()
    server = GrpcServer(plant.driver, GrpcSettings(max_message_bytes=1024))
    await server.start()
    async with aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        call = Client(channel).infer()
        while not plant.engine.calls:
            await asyncio.sleep(0.01)

        stopping = asyncio.create_task(server.stop(60))
        await asyncio.sleep(0.1)
        plant.engine.hold.set()
        response = await call
        await asyncio.wait_for(stopping, 30)

    assert outputs(response) == [[[3.0]]]


@on_loop
async def test_the_server_is_no_secret(tmp_path):
    plant = Plant(tmp_path)

    async with serving(plant) as client:
        live = await client.call("ServerLive", b"", metadata=())
        before = await client.call("ServerReady", b"", metadata=())
        await plant.engines.ask()
        after = await client.call("ServerReady", b"", metadata=())
        facts = await client.call("ServerMetadata", b"", metadata=())

    assert live.live
    assert (before.ready, after.ready) == (False, True)
    assert facts.name == "modelyard"


@on_loop
async def test_models_are_described_to_their_callers(tmp_path):
    plant = Plant(tmp_path)
    await plant.engines.ask()

    async with serving(plant) as client:
        ready = await client.call("ModelReady", messages.ModelReadyRequest(name="m"))
        facts = await client.call(
            "ModelMetadata", messages.ModelMetadataRequest(name="m", version="1")
        )
        missing = await refusal(
            client.call("ModelReady", messages.ModelReadyRequest(name="other"))
        )

    assert ready.ready
    [given] = facts.inputs
    assert (given.name, given.datatype, list(given.shape)) == ("input", "FP32", [-1, 1])
    assert missing.code() is grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize(
    ("scopes", "code"),
    [
        (("usage",), grpc.StatusCode.PERMISSION_DENIED),
        (("models:read",), grpc.StatusCode.RESOURCE_EXHAUSTED),
    ],
)
@on_loop
async def test_models_are_described_by_scope_and_within_the_rates(
    tmp_path, scopes, code
):
    # The window is a day long, so that it does not end during the test.
    plant = Plant(
        tmp_path, limits=Limits(plan="p", rates=(Rate("sustained", 1, 86_400),))
    )
    snapshot = plant.tables.as_snapshot()
    key = published().keys[0]
    key = msgspec.structs.replace(key, scopes=scopes)
    plant.tables.replace(msgspec.structs.replace(snapshot, keys=(key,)))

    async with serving(plant) as client:
        if scopes == ("models:read",):
            await client.call("ModelReady", messages.ModelReadyRequest(name="m"))
        refused = await refusal(
            client.call("ModelMetadata", messages.ModelMetadataRequest(name="m"))
        )

    assert refused.code() is code


@on_loop
async def test_typed_contents_of_every_kind(tmp_path):
    dtypes = {
        "bool": ("BOOL", "bool_contents", True),
        "int8": ("INT8", "int_contents", -3),
        "int64": ("INT64", "int64_contents", 2**40),
        "uint16": ("UINT16", "uint_contents", 65535),
        "uint64": ("UINT64", "uint64_contents", 2**40),
        "float64": ("FP64", "fp64_contents", 0.5),
        "str": ("BYTES", "bytes_contents", b"text"),
    }
    plant = Plant(tmp_path)
    _serve(
        plant,
        Signature(
            layout=Layout.TABLE,
            columns=tuple(Column(name=name, dtype=name) for name in dtypes),
        ),
    )
    seen = []
    answer = plant.engine.predict

    async def predict(call):
        seen.extend(call.tensors)
        return await answer(msgspec.structs.replace(call, tensors=[call.tensors[1]]))

    plant.engine.predict = predict
    good = messages.ModelInferRequest(model_name="m")
    for name, (datatype, member, value) in dtypes.items():
        tensor = good.inputs.add(name=name, datatype=datatype, shape=[1])
        getattr(tensor.contents, member).append(value)
    bad = messages.ModelInferRequest.FromString(good.SerializeToString())
    bad.inputs[1].contents.int_contents[0] = 300

    async with serving(plant) as client:
        await client.infer(good)
        error = await refusal(client.infer(bad))

    assert [tensor.data.tolist() for tensor in seen] == [
        [True],
        [-3],
        [2**40],
        [65535],
        [2**40],
        [0.5],
        ["text"],
    ]
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert error.details().startswith("UNPROCESSABLE: ")


def _serve(plant, signature):
    """Let the plant's only model have this signature."""
    snapshot = plant.tables.as_snapshot()
    [model] = snapshot.models
    [version] = model.versions
    version = msgspec.structs.replace(version, signature=signature)
    model = msgspec.structs.replace(model, versions=(version,))
    plant.tables.replace(msgspec.structs.replace(snapshot, models=(model,)))


@on_loop
async def test_a_taken_port_is_named(tmp_path):
    plant = Plant(tmp_path)
    settings = GrpcSettings(max_message_bytes=1)
    first = GrpcServer(plant.driver, settings)

    with pytest.raises(PortTaken, match=f":{first.port} for gRPC"):
        GrpcServer(plant.driver, msgspec.structs.replace(settings, port=first.port))

    await first.stop(0)


@on_loop
async def test_several_gateways_share_the_port(tmp_path):
    plant = Plant(tmp_path)
    settings = GrpcSettings(max_message_bytes=1024, shared=True)
    first = GrpcServer(plant.driver, settings)
    second = GrpcServer(
        plant.driver, msgspec.structs.replace(settings, port=first.port)
    )

    assert second.port == first.port

    await first.stop(0)
    await second.stop(0)
