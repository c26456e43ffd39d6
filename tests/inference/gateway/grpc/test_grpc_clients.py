"""gRPC's own client against our HTTP/2: large messages, streams, load, draining."""

import asyncio

import grpc
import pytest
from grpc import aio

from inference.dialects.open_inference.open_inference_pb2 import (
    ModelInferResponse,
    ModelStreamInferResponse,
)
from inference.gateway.grpc.server import GrpcServer, GrpcSettings
from inference.gateway.http2 import limits
from tests.inference.gateway.http2.peer import (
    INFER,
    STREAM,
    on_loop,
    row,
    serve_wide,
    serving,
)
from tests.inference.gateway.plant import KEY, Plant

WITH_KEY = (("authorization", f"Bearer {KEY.token}"),)
# 1 MB of float32.
WIDTH = 250_000
LARGE = 2 * 1024 * 1024
OPTIONS = (("grpc.max_receive_message_length", LARGE),)


def infer(channel):
    return channel.unary_unary(
        INFER, response_deserializer=ModelInferResponse.FromString
    )


def stream(channel):
    return channel.stream_stream(
        STREAM, response_deserializer=ModelStreamInferResponse.FromString
    )


@on_loop
async def test_large_tensors_go_both_ways(tmp_path):
    plant = Plant(tmp_path)
    serve_wide(plant, WIDTH)
    message = row(*[1] * WIDTH)
    doubled = b"\0\0\0\x40" * WIDTH

    async with serving(plant, max_message_bytes=LARGE) as found:
        target = f"127.0.0.1:{found.server.port}"
        async with aio.insecure_channel(target, options=OPTIONS) as channel:
            calls = [infer(channel)(message, metadata=WITH_KEY) for _ in range(6)]
            answers = await asyncio.gather(*calls)
            both = stream(channel)(metadata=WITH_KEY)
            for _ in range(3):
                await both.write(message)
                answers.append((await both.read()).infer_response)
            await both.done_writing()
            assert await both.read() is aio.EOF

    assert all(answer.raw_output_contents[0] == doubled for answer in answers)
    assert len(answers) == 9


@on_loop
async def test_clients_may_keep_their_connection_alive(tmp_path):
    plant = Plant(tmp_path)
    plant.engine.hold = asyncio.Event()
    options = (
        ("grpc.keepalive_time_ms", 1000),
        ("grpc.keepalive_timeout_ms", 1000),
        ("grpc.http2.max_pings_without_data", 0),
    )

    async with serving(plant) as found:
        target = f"127.0.0.1:{found.server.port}"
        async with aio.insecure_channel(target, options=options) as channel:
            call = infer(channel)(row(1), metadata=WITH_KEY)
            await asyncio.sleep(3.5)
            plant.engine.hold.set()
            answer = await call

    assert answer.model_name == "m"


@on_loop
async def test_more_calls_than_streams_wait_for_their_turn(tmp_path):
    count = limits.MAX_STREAMS + 100

    async with serving(Plant(tmp_path)) as found:
        target = f"127.0.0.1:{found.server.port}"
        async with aio.insecure_channel(target) as channel:
            call = infer(channel)
            answers = await asyncio.gather(
                *(call(row(1, id=str(n)), metadata=WITH_KEY) for n in range(count))
            )

    assert [answer.id for answer in answers] == [str(n) for n in range(count)]


@on_loop
async def test_a_call_that_is_cancelled_or_late_leaves_nothing_behind(tmp_path):
    plant = Plant(tmp_path)
    plant.engine.hold = asyncio.Event()

    async with serving(plant) as found:
        target = f"127.0.0.1:{found.server.port}"
        async with aio.insecure_channel(target) as channel:
            late = infer(channel)(row(1), metadata=WITH_KEY, timeout=0.2)
            with pytest.raises(aio.AioRpcError) as caught:
                await late
            left = infer(channel)(row(1), metadata=WITH_KEY)
            while plant.engine.calls < 2:
                await asyncio.sleep(0.01)
            left.cancel()
            await found.answered()

    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert plant.metrics.abandoned == 2


@on_loop
async def test_calls_under_load_are_all_answered_at_the_end(tmp_path):
    plant = Plant(tmp_path)
    first = GrpcServer(plant.driver, GrpcSettings(max_message_bytes=LARGE, shared=True))
    await first.start()
    settings = GrpcSettings(max_message_bytes=LARGE, shared=True, port=first.port)
    stopping = asyncio.Event()
    answered = 0

    async def call_again(channel):
        nonlocal answered
        call = infer(channel)
        while not stopping.is_set():
            await call(row(1), metadata=WITH_KEY)
            answered += 1

    # Each channel has a connection of its own.
    options = (("grpc.use_local_subchannel_pool", 1),)
    channels = [
        aio.insecure_channel(f"127.0.0.1:{first.port}", options=options)
        for _ in range(4)
    ]
    load = [
        asyncio.create_task(call_again(channel))
        for channel in channels
        for _ in range(8)
    ]
    while answered < 200:
        await asyncio.sleep(0.01)
    # A second server takes over, as when several gateways share the port.
    second = GrpcServer(plant.driver, settings)
    await second.start()
    await asyncio.wait_for(first.stop(20), 15)
    before = answered
    async with asyncio.timeout(20):
        while answered < before + 200:
            await asyncio.sleep(0.01)
    stopping.set()
    # No call has failed.
    await asyncio.gather(*load)
    for channel in channels:
        await channel.close()
    await second.stop(5)

    assert not first.connections
    assert first.calls == second.calls == 0
    assert {event.status for event in plant.events()} <= {200, 429}
