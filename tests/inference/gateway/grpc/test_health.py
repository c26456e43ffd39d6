"""grpc.health.v1.Health, asked by the stubs of gRPC itself."""

import asyncio
import contextlib

import grpc
import msgspec
import pytest
from grpc import aio
from grpc_health.v1 import health_pb2_grpc
from grpc_health.v1.health_pb2 import (
    HealthCheckRequest,
    HealthCheckResponse,
    HealthListRequest,
)

from accounts.admission.limits import Limits, Rate
from inference.gateway.grpc.server import GrpcServer, GrpcSettings
from inference.gateway.http2 import limits
from tests.inference.gateway.http2.peer import on_loop
from tests.inference.gateway.plant import KEY, Plant

SERVING = HealthCheckResponse.SERVING
NOT_SERVING = HealthCheckResponse.NOT_SERVING
UNKNOWN = HealthCheckResponse.SERVICE_UNKNOWN
WITH_KEY = (("authorization", f"Bearer {KEY.token}"),)


@contextlib.asynccontextmanager
async def asking(plant):
    """Yield a server that sweeps when the test says so, and a stub."""
    server = GrpcServer(plant.driver, GrpcSettings(max_message_bytes=1024))
    await server.start()
    try:
        async with aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            yield server, health_pb2_grpc.HealthStub(channel)
    finally:
        await server.stop(0)


async def check(stub, service="", metadata=()):
    answer = await stub.Check(
        HealthCheckRequest(service=service), timeout=20, metadata=metadata
    )
    return answer.status


async def refusal(call):
    with pytest.raises(aio.AioRpcError) as caught:
        await call
    return caught.value


async def told(watching):
    return (await asyncio.wait_for(watching.read(), 20)).status


@pytest.mark.parametrize(
    "service", ["", "inference.GRPCInferenceService", "grpc.health.v1.Health"]
)
@on_loop
async def test_everybody_may_ask_whether_the_gateway_is_ready(tmp_path, service):
    plant = Plant(tmp_path)

    async with asking(plant) as (_, stub):
        before = await check(stub, service)
        await plant.engines.ask()
        after = await check(stub, service)

    assert (before, after) == (NOT_SERVING, SERVING)


@on_loop
async def test_all_services_are_listed_and_no_model(tmp_path):
    plant = Plant(tmp_path)
    await plant.engines.ask()

    async with asking(plant) as (_, stub):
        answer = await stub.List(HealthListRequest(), timeout=20)

    assert {name: found.status for name, found in answer.statuses.items()} == {
        "": SERVING,
        "inference.GRPCInferenceService": SERVING,
        "grpc.health.v1.Health": SERVING,
    }


@on_loop
async def test_a_models_health_is_for_those_who_may_call_it(tmp_path):
    plant = Plant(tmp_path)

    async with asking(plant) as (_, stub):
        before = await check(stub, "m", WITH_KEY)
        await plant.engines.ask()
        after = await check(stub, "m", WITH_KEY)
        errors = [
            await refusal(check(stub, service, metadata))
            for service, metadata in (
                ("m", ()),
                ("m", (("x-api-key", "my_live_nobody"),)),
                ("other", WITH_KEY),
                ("other", ()),
            )
        ]

    assert (before, after) == (NOT_SERVING, SERVING)
    assert {error.code() for error in errors} == {grpc.StatusCode.NOT_FOUND}
    assert len({error.details() for error in errors}) == 1


@on_loop
async def test_looking_for_models_counts_against_the_rates(tmp_path):
    plant = Plant(tmp_path, limits=Limits(plan="p", rates=(Rate("day", 1, 86_400),)))

    async with asking(plant) as (_, stub):
        await refusal(check(stub, "other", WITH_KEY))
        error = await refusal(check(stub, "m", WITH_KEY))
        request = HealthCheckRequest(service="m")
        watched = await refusal(stub.Watch(request, metadata=WITH_KEY).read())

    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert watched.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


@on_loop
async def test_who_watches_is_told_of_each_change_once(tmp_path):
    plant = Plant(tmp_path)

    async with asking(plant) as (server, stub):
        watching = stub.Watch(HealthCheckRequest())
        seen = [await told(watching)]
        server.sweep()
        await plant.engines.ask()
        seen.append(await told(watching))
        plant.engine.state = "gone"
        await plant.engines.ask()
        seen.append(await told(watching))
        watching.cancel()

    assert seen == [NOT_SERVING, SERVING, NOT_SERVING]


@on_loop
async def test_a_model_is_watched_before_it_is_there_and_after(tmp_path):
    plant = Plant(tmp_path)
    await plant.engines.ask()
    snapshot = plant.tables.as_snapshot()

    async with asking(plant) as (_, stub):
        watching = stub.Watch(HealthCheckRequest(service="m"), metadata=WITH_KEY)
        unknown = stub.Watch(HealthCheckRequest(service="other"), metadata=WITH_KEY)
        stranger = stub.Watch(HealthCheckRequest(service="m"))
        seen = [await told(each) for each in (watching, unknown, stranger)]
        plant.tables.replace(msgspec.structs.replace(snapshot, keys=()))
        seen.append(await told(watching))

    assert seen == [SERVING, UNKNOWN, UNKNOWN, UNKNOWN]


@on_loop
async def test_a_gateway_that_stops_says_so_to_who_watches(tmp_path):
    plant = Plant(tmp_path)
    await plant.engines.ask()

    async with asking(plant) as (server, stub):
        watching = stub.Watch(HealthCheckRequest())
        seen = [await told(watching)]
        stopping = asyncio.create_task(server.stop(30))
        seen.append(await told(watching))
        error = await refusal(watching.read())
        await asyncio.wait_for(stopping, 20)

    assert seen == [SERVING, NOT_SERVING]
    assert error.code() is grpc.StatusCode.UNAVAILABLE


@on_loop
async def test_one_who_watches_much_leaves_room_for_a_check(tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "MAX_ALL_KEYLESS_CALLS", 4)
    plant = Plant(tmp_path)

    async with asking(plant) as (_, stub):
        watching = [stub.Watch(HealthCheckRequest()) for _ in range(2)]
        for each in watching:
            await told(each)
        error = await refusal(stub.Watch(HealthCheckRequest()).read())
        for each in watching:
            each.cancel()

    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert plant.metrics.bounds["grpc_calls_without_key"].refused == 1


@on_loop
async def test_what_is_no_request_is_refused(tmp_path):
    async with asking(Plant(tmp_path)) as (server, _):
        target = f"127.0.0.1:{server.port}"
        async with aio.insecure_channel(target) as channel:
            codes = [
                (await refusal(channel.unary_unary(path)(b"\xff"))).code()
                for path in ("/grpc.health.v1.Health/Check",)
            ]
            watching = channel.unary_stream("/grpc.health.v1.Health/Watch")(b"\xff")
            codes.append((await refusal(watching.read())).code())

    assert codes == [grpc.StatusCode.INVALID_ARGUMENT] * 2
