"""Implement grpc.health.v1.Health: whether the gateway, or a model, can answer.

https://github.com/grpc/grpc/blob/master/doc/health-checking.md. Anybody may ask for
the gateway's own health; callers with a key may ask for a model's, by its name.
"""

from collections.abc import Callable

from google.protobuf.message import DecodeError
from grpc_health.v1.health_pb2 import (
    HealthCheckRequest,
    HealthCheckResponse,
    HealthListResponse,
)

from inference.errors.api_error import ApiError
from inference.gateway.grpc import service
from inference.gateway.grpc.calls import WatchedCall
from inference.gateway.grpc.methods import Method, MethodCall, Shape
from inference.gateway.grpc.statuses import Status
from inference.gateway.open_inference.facts import OpenInferenceFacts
from inference.snapshot.keys import KeyEntry

NAME = "grpc.health.v1.Health"
# Service names that mean the gateway itself; the empty one means all of it.
_OURSELVES = frozenset({"", service.NAME, NAME})

_SERVING: bytes = HealthCheckResponse(
    status=HealthCheckResponse.SERVING
).SerializeToString()
_NOT_SERVING: bytes = HealthCheckResponse(
    status=HealthCheckResponse.NOT_SERVING
).SerializeToString()
_UNKNOWN: bytes = HealthCheckResponse(
    status=HealthCheckResponse.SERVICE_UNKNOWN
).SerializeToString()

Body = bytes | memoryview


class HealthService:
    """Answer as readiness over HTTP does; a draining gateway is not serving."""

    def __init__(
        self,
        facts: OpenInferenceFacts,
        *,
        is_draining: Callable[[], bool],
        clock: Callable[[], float],
    ) -> None:
        self._facts = facts
        self._is_draining = is_draining
        self._clock = clock
        # The last status and its time: one sweep serves all watching clients from it.
        self._looked_at = -1.0
        self._seen = _NOT_SERVING
        prefix = b"/%b/" % NAME.encode()
        self.methods = {
            prefix + b"Check": Method(self._check, needs_key=False),
            prefix + b"List": Method(self._list, needs_key=False),
            prefix + b"Watch": Method(
                self._watch, needs_key=False, shape=Shape.WATCHED
            ),
        }

    def _check(self, call: MethodCall, body: Body) -> None:
        name = _name(call, body)
        if name is None:
            return
        status = self._first_look(call, name)
        if status is _UNKNOWN:
            # Strangers must not learn which names exist.
            message = "There is no such service, or no model that your key may call."
            call.refuse(Status.NOT_FOUND, message)
        elif status is not None:
            call.reply(status)

    def _list(self, call: MethodCall, body: Body) -> None:
        """Answer with the status of all services; models are not listed."""
        response = HealthListResponse()
        for name in _OURSELVES:
            status = HealthCheckResponse.FromString(self._look(call, name, call.now()))
            response.statuses[name].CopyFrom(status)
        call.reply(response.SerializeToString())

    def _watch(self, call: MethodCall, body: Body) -> None:
        assert isinstance(call, WatchedCall)
        name = _name(call, body)
        if name is None:
            return
        first = self._first_look(call, name)
        if first is None:
            return
        told: bytes | None = None

        def look(now: float) -> bytes | None:
            nonlocal told
            status = self._look(call, name, now)
            if status is told:
                return None
            told = status
            return status

        call.watch(look)

    def _first_look(self, call: MethodCall, name: str) -> bytes | None:
        """Return a status, counted against the caller's rates; None if refused."""
        if name not in _OURSELVES:
            try:
                self._facts.model_ready(self._caller(call), name, None)
            except ApiError as error:
                if error.limit is None:
                    return _UNKNOWN
                call.refuse(Status.RESOURCE_EXHAUSTED, error.message)
                return None
        return self._look(call, name, call.now())

    def _look(self, call: MethodCall, name: str, now: float) -> bytes:
        if self._is_draining():
            return _NOT_SERVING
        if name in _OURSELVES:
            if now != self._looked_at:
                self._looked_at = now
                self._seen = _written(self._facts.server_ready())
            return self._seen
        try:
            return _written(self._facts.answers(self._caller(call), name, None))
        except ApiError:
            return _UNKNOWN

    def _caller(self, call: MethodCall) -> KeyEntry:
        """Find the key of a caller who asks for a model; raises ApiError."""
        client = call.connection.client
        return self._facts.caller(call.facts, client, self._clock())


def _written(ready: bool) -> bytes:
    return _SERVING if ready else _NOT_SERVING


def _name(call: MethodCall, body: Body) -> str | None:
    """Read the name of the service; None if the call was refused."""
    try:
        return str(HealthCheckRequest.FromString(body).service)
    except DecodeError:
        call.refuse(Status.INVALID_ARGUMENT, "The message cannot be read.")
        return None
