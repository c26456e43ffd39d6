"""Answer health and metadata of the Open Inference Protocol over HTTP."""

import time
from collections.abc import Callable
from typing import Any

import msgspec

from accounts.admission.key_format import holds_key
from inference.dialects import call_headers
from inference.dialects.call_headers import Head
from inference.dialects.dialect import Headers
from inference.dialects.open_inference.over_http import render_error
from inference.errors import refusals
from inference.errors.api_error import ApiError, ErrorCode
from inference.gateway.open_inference.facts import OpenInferenceFacts
from inference.gateway.routes import find_prediction

_MODELS = "/v2/models/"
_INDEX = "/v2/repository/index"

HttpAnswer = tuple[int, Headers, bytes]


def is_open_inference(path: str) -> bool:
    return path == "/v2" or path[:4] == "/v2/"


class OpenInferenceApp:
    """Answer all paths below /v2 except predictions."""

    def __init__(
        self,
        facts: OpenInferenceFacts,
        *,
        new_request_id: Callable[[], str],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._facts = facts
        self._new_request_id = new_request_id
        self._clock = clock

    def answer(
        self,
        method: str,
        path: str,
        query: bytes,
        headers: list[tuple[bytes, bytes]],
        peer: str,
    ) -> HttpAnswer:
        head = call_headers.read(headers)
        request_id = head.request_id or self._new_request_id()
        try:
            if holds_key(query):
                raise refusals.key_in_query()
            status, found, told = self._find(method, path.rstrip("/"), head, peer)
        except ApiError as error:
            refused = render_error(error, request_id)
            now = self._clock()
            refused[1].extend(self._facts.rate_headers(head, now, error.limit))
            if error.code is ErrorCode.METHOD_NOT_ALLOWED:
                allowed = ", ".join(_methods(path.rstrip("/")))
                refused[1].append((b"allow", allowed.encode()))
            return refused
        body = msgspec.json.encode(found)
        return (
            status,
            [
                (b"content-type", b"application/json"),
                (b"content-length", b"%d" % len(body)),
                (b"x-request-id", request_id.encode()),
                (b"cache-control", b"no-store"),
                *told,
                *self._facts.rate_headers(head, self._clock()),
            ],
            body,
        )

    def _find(
        self, method: str, path: str, head: Head, peer: str
    ) -> tuple[int, Any, Headers]:
        allowed = _methods(path)
        if method not in allowed:
            message = f"Use {allowed[0]} for this path."
            raise ApiError(ErrorCode.METHOD_NOT_ALLOWED, message)
        if path == _INDEX:
            caller = self._facts.caller(head, peer, self._clock())
            return 200, self._facts.index(caller), []
        if path == "/v2":
            return 200, self._facts.server(), []
        if path == "/v2/health/live":
            return 200, {"live": True}, []
        if path == "/v2/health/ready":
            ready = self._facts.server_ready()
            return 200 if ready else 503, {"ready": ready}, []
        caller = self._facts.caller(head, peer, self._clock())
        name, version, rest = _split(path)
        if rest == "":
            described = self._facts.model(caller, name, version)
            return 200, described, self._facts.headers(name, version)
        if rest == "ready":
            ready = self._facts.model_ready(caller, name, version)
            found = {"name": name, "ready": ready}
            return 200 if ready else 503, found, self._facts.headers(name, version)
        raise _nothing()


def _split(path: str) -> tuple[str, str | None, str]:
    """Split a path into model, version and the rest."""
    if path[: len(_MODELS)] != _MODELS:
        raise _nothing()
    name, _, rest = path[len(_MODELS) :].partition("/")
    if rest[:9] != "versions/":
        return name, None, rest
    version, _, rest = rest[9:].partition("/")
    return name, version, rest


def _methods(path: str) -> tuple[str, ...]:
    if path == _INDEX or find_prediction(path) is not None:
        return ("POST",)
    return ("GET", "HEAD")


def _nothing() -> ApiError:
    return ApiError(ErrorCode.NOT_FOUND, "There is nothing here.")
