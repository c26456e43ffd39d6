"""Server reflection, asked by gRPC's own descriptor database."""

import asyncio

import grpc
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha import reflection_pb2 as messages
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)

from inference.gateway.grpc.server import GrpcServer, GrpcSettings
from tests.inference.gateway.grpc.test_service import WITH_KEY, request
from tests.inference.gateway.http2.peer import on_loop
from tests.inference.gateway.plant import Plant

SERVICES = [
    "grpc.health.v1.Health",
    "grpc.reflection.v1.ServerReflection",
    "grpc.reflection.v1alpha.ServerReflection",
    "inference.GRPCInferenceService",
]


async def ask(folder, work):
    """Do blocking work with a channel to a server."""
    plant = Plant(folder)
    server = GrpcServer(plant.driver, GrpcSettings(max_message_bytes=1024 * 1024))
    await server.start()

    def in_thread():
        with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            return work(channel)

    try:
        return await asyncio.to_thread(in_thread)
    finally:
        await server.stop(0)


@on_loop
async def test_services_and_their_messages_are_described(tmp_path):
    def work(channel):
        database = ProtoReflectionDescriptorDatabase(channel)
        pool = DescriptorPool(database)
        return database.get_services(), {
            name: sorted(pool.FindServiceByName(name).methods_by_name)
            for name in SERVICES
        }

    services, methods = await ask(tmp_path, work)

    assert sorted(services) == SERVICES
    assert methods["grpc.health.v1.Health"] == ["Check", "List", "Watch"]
    assert methods["grpc.reflection.v1.ServerReflection"] == ["ServerReflectionInfo"]
    assert "ModelStreamInfer" in methods["inference.GRPCInferenceService"]


@on_loop
async def test_a_client_without_our_files_can_predict(tmp_path):
    """Ask for a method as grpcurl does."""

    def work(channel):
        pool = DescriptorPool(ProtoReflectionDescriptorDatabase(channel))
        service = pool.FindServiceByName("inference.GRPCInferenceService")
        method = service.methods_by_name["ModelInfer"]
        sent = GetMessageClass(method.input_type)
        got = GetMessageClass(method.output_type)
        call = channel.unary_unary(
            f"/{service.full_name}/{method.name}",
            request_serializer=sent.SerializeToString,
            response_deserializer=got.FromString,
        )
        message = sent.FromString(request([1.5]).SerializeToString())
        return call(message, metadata=WITH_KEY, timeout=20)

    answer = await ask(tmp_path, work)

    assert answer.model_name == "m"


@pytest.mark.parametrize("package", ["grpc.reflection.v1", "grpc.reflection.v1alpha"])
@on_loop
async def test_both_versions_answer_one_question_after_another(tmp_path, package):
    asked = [
        {"list_services": ""},
        {"file_containing_symbol": "inference.GRPCInferenceService.ModelInfer"},
        {"file_containing_symbol": f"{package}.ServerReflectionRequest"},
        {"file_by_filename": "grpc/reflection/v1/reflection.proto"},
        # It is loaded in the process, but we do not serve it.
        {"file_by_filename": "google/protobuf/descriptor.proto"},
        {"file_containing_symbol": "nobody.Knows"},
        {"all_extension_numbers_of_type": "inference.ModelInferRequest"},
        {},
    ]

    def work(channel):
        call = channel.stream_stream(
            f"/{package}.ServerReflection/ServerReflectionInfo",
            request_serializer=messages.ServerReflectionRequest.SerializeToString,
            response_deserializer=messages.ServerReflectionResponse.FromString,
        )
        requests = [messages.ServerReflectionRequest(**one) for one in asked]
        return requests, list(call(iter(requests), timeout=20))

    requests, answers = await ask(tmp_path, work)

    assert [answer.original_request for answer in answers] == requests
    kinds = [answer.WhichOneof("message_response") for answer in answers]
    assert kinds == [
        "list_services_response",
        *["file_descriptor_response"] * 3,
        *["error_response"] * 4,
    ]
    codes = {answer.error_response.error_code for answer in answers[4:]}
    assert codes == {grpc.StatusCode.NOT_FOUND.value[0]}


@on_loop
async def test_what_is_no_question_is_refused(tmp_path):
    def work(channel):
        name = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
        call = channel.stream_stream(name)
        with pytest.raises(grpc.RpcError) as caught:
            list(call(iter([b"\xff"]), timeout=20))
        return caught.value.code()

    assert await ask(tmp_path, work) is grpc.StatusCode.INVALID_ARGUMENT
