"""Implement gRPC server reflection, v1 and v1alpha: list services and their messages.

https://github.com/grpc/grpc/blob/master/doc/server-reflection.md. It needs no key: the
descriptions are those of the Open Inference Protocol and of gRPC, which are public.
"""

from collections.abc import Callable

from google.protobuf import text_format
from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2
from grpc_reflection.v1alpha.reflection_pb2 import (
    ServerReflectionRequest,
    ServerReflectionResponse,
)

from inference.dialects.open_inference import open_inference_pb2
from inference.gateway.grpc import health, service
from inference.gateway.grpc.methods import Method, MethodCall, Shape
from inference.gateway.grpc.statuses import Status

_ALPHA = "grpc.reflection.v1alpha"
_V1 = "grpc.reflection.v1"
_NAMES = [f"{package}.ServerReflection" for package in (_V1, _ALPHA)]
_SERVICES = sorted([service.NAME, health.NAME, *_NAMES])

Body = bytes | memoryview


class ReflectionService:
    """Answer from an own descriptor pool, which holds only what is served."""

    def __init__(self) -> None:
        self._pool = DescriptorPool()
        alpha = reflection_pb2.DESCRIPTOR
        for file in (open_inference_pb2.DESCRIPTOR, health_pb2.DESCRIPTOR, alpha):
            self._pool.Add(_proto(file))
        self._pool.Add(_renamed(_proto(alpha)))
        # Both versions have the same messages on the wire.
        self.methods = {
            f"/{name}/ServerReflectionInfo".encode(): Method(
                self._info, needs_key=False, shape=Shape.STREAMED
            )
            for name in _NAMES
        }

    def _info(self, call: MethodCall, body: Body) -> None:
        try:
            request = ServerReflectionRequest.FromString(body)
        except DecodeError:
            call.refuse(Status.INVALID_ARGUMENT, "The message cannot be read.")
            return
        response = ServerReflectionResponse(
            valid_host=request.host, original_request=request
        )
        match request.WhichOneof("message_request"):
            case "list_services":
                for name in _SERVICES:
                    response.list_services_response.service.add(name=name)
            case "file_by_filename":
                self._add_file(
                    response, self._pool.FindFileByName, request.file_by_filename
                )
            case "file_containing_symbol":
                self._add_file(response, self._file_of, request.file_containing_symbol)
            case _:
                # None of our messages can be extended.
                _refuse(response, Status.NOT_FOUND, "There are no extensions.")
        call.reply(response.SerializeToString())

    def _file_of(self, symbol: str) -> FileDescriptor:
        """Find the file of a symbol; raises KeyError."""
        try:
            return self._pool.FindFileContainingSymbol(symbol)
        except KeyError:
            # It does not find methods.
            return self._pool.FindMethodByName(symbol).containing_service.file

    def _add_file(
        self,
        response: ServerReflectionResponse,
        find: Callable[[str], FileDescriptor],
        name: str,
    ) -> None:
        try:
            file = find(name)
        except KeyError:
            _refuse(response, Status.NOT_FOUND, f"There is no {name[:200]!r}.")
            return
        # None of our files imports another.
        response.file_descriptor_response.file_descriptor_proto.append(
            _proto(file).SerializeToString()
        )


def _refuse(response: ServerReflectionResponse, status: Status, message: str) -> None:
    response.error_response.error_code = status
    response.error_response.error_message = message


def _proto(file: FileDescriptor) -> FileDescriptorProto:
    proto = FileDescriptorProto()
    file.CopyToProto(proto)
    return proto


def _renamed(alpha: FileDescriptorProto) -> FileDescriptorProto:
    """Make v1 from v1alpha, which differs only by its name."""
    text = text_format.MessageToString(alpha).replace(_ALPHA, _V1)
    proto = text_format.Parse(text, FileDescriptorProto())
    proto.name = "grpc/reflection/v1/reflection.proto"
    return proto
