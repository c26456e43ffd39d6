"""Serve predictions and models by Django, at the gateway's paths, with its answers.

The plan authenticates, admits and reads the raw body itself, so the prediction views
have no authenticators or parsers of DRF; schemas only document the bodies.
"""

from collections.abc import Callable, Iterator
from typing import Any, NoReturn, cast

from django.http import (
    HttpRequest,
    HttpResponse,
    HttpResponseBase,
    StreamingHttpResponse,
)
from django.urls import URLPattern, path
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import (
    OpenApiParameter,
    OpenApiResponse,
    extend_schema,
    extend_schema_view,
)
from rest_framework.permissions import IsAuthenticated
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from accounts.admission.key_format import holds_key
from accounts.api.authentication import HasScope, client_address
from accounts.api.throttling import KeyThrottle
from accounts.customers import plans
from accounts.models import ApiKey
from inference.api import driver, model_cards
from inference.api.openapi.shared_schemas import json_body, reference
from inference.api.serializers import ModelListSerializer, ModelSerializer
from inference.dialects import call_headers
from inference.dialects.call_headers import Head
from inference.dialects.dialect import Call, Dialect, Headers, Operation
from inference.dialects.operations import OPERATIONS, ServedOperation
from inference.errors import refusals
from inference.errors.api_error import ApiError, ErrorCode
from inference.prediction.effects import Answer
from inference.snapshot.contents import CallableModel

_EXPLAIN = OpenApiParameter(
    name="explain", type=bool, description="Also explain each prediction."
)


_EVENTS = {
    (200, "text/event-stream"): OpenApiResponse(
        OpenApiTypes.STR, description="The events, the last of them `end` or `error`."
    )
}


class _PlanView(APIView):
    """Pass a request to the plan, and return its answer byte for byte."""

    authentication_classes = ()
    permission_classes = ()
    parser_classes = ()
    throttle_classes = ()
    http_method_names = ("post",)
    operation: Operation
    dialect: Dialect

    def perform_content_negotiation(
        self, request: Request, force: bool = False
    ) -> tuple[Any, str]:
        # The plan reads Accept itself.
        return JSONRenderer(), "application/json"

    @property
    def default_response_headers(self) -> dict[str, str]:
        # The plan writes all headers.
        return {}

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        """Refuse relayed requests: a gateway counts rates and answers these itself."""
        if request.META.get("REMOTE_ADDR", "") == "":
            raise ApiError(ErrorCode.NOT_FOUND, "There is nothing here.")
        super().initial(request, *args, **kwargs)

    def http_method_not_allowed(
        self, request: HttpRequest, *args: Any, **kwargs: Any
    ) -> NoReturn:
        limits = driver.current().rate_headers(_head(request).token)
        self.headers |= {"Allow": "POST"} | _readable(limits)
        raise ApiError(ErrorCode.METHOD_NOT_ALLOWED, "Send predictions by POST.")

    def post(
        self, request: Request, model: str | None = None, version: str | None = None
    ) -> HttpResponseBase:
        wsgi_request = request._request
        call = self._call(wsgi_request, model, version)
        return _respond(
            driver.current().answer(call, lambda limit: _read_body(wsgi_request, limit))
        )

    def _call(
        self, request: HttpRequest, model: str | None, version: str | None
    ) -> Call:
        query = request.META.get("QUERY_STRING", "").encode("latin-1", "replace")
        return Call(
            operation=self.operation,
            head=_head(request),
            dialect=self.dialect,
            model=model,
            version=version,
            explain=call_headers.asks_to_explain(query),
            peer=client_address(request),
            key_in_query=holds_key(query),
        )


class _StreamView(_PlanView):
    """Send the pieces of an answer as the plan makes them."""

    def post(
        self, request: Request, model: str | None = None, version: str | None = None
    ) -> HttpResponseBase:
        wsgi_request = request._request
        call = self._call(wsgi_request, model, version)
        answer = driver.current().stream(
            call, lambda limit: _read_body(wsgi_request, limit)
        )
        if isinstance(answer, Answer):
            return _respond(answer)
        return StreamingHttpResponse(answer.pieces, headers=_readable(answer.headers))


def prediction_paths() -> Iterator[URLPattern]:
    """Yield the paths of all operations, each with a view that describes itself."""
    for served in OPERATIONS:
        name, requests = served.name, served.requests
        view = _view(served, name, served.summary, requests)
        yield path(f"models/<str:model>/{served.path}", view, name=name)
        name = f"{served.name}WithVersion"
        view = _view(served, name, served.summary_with_version, requests)
        versions = f"models/<str:model>/versions/<str:version>/{served.path}"
        yield path(versions, view, name=name)
        if served.summary_with_default_model:
            name = f"{served.name}WithDefaultModel"
            requests = served.requests_with_default_model
            view = _view(served, name, served.summary_with_default_model, requests)
            yield path(served.path, view, name=name)


def _view(
    served: ServedOperation, name: str, summary: str, requests: tuple[str, ...]
) -> Callable[..., HttpResponseBase]:
    """Make the view of one path; drf-spectacular wants the schema in the class."""
    body: dict[str, Any] = dict(json_body(*requests))
    if served.takes_csv:
        body["text/csv"] = OpenApiTypes.STR

    @extend_schema_view(
        post=extend_schema(
            operation_id=name,
            summary=summary,
            description=served.description,
            parameters=[_EXPLAIN] if served.explainable else [],
            request=body,
            responses=_EVENTS
            if served.answer is None
            else {200: reference(served.answer)},
        )
    )
    class View(_PlanView if served.answer is not None else _StreamView):  # type: ignore[misc]
        operation = served.operation
        dialect = served.dialect

    return cast(Callable[..., HttpResponseBase], View.as_view())


class _ModelsView(APIView):
    permission_classes = (IsAuthenticated, HasScope)
    throttle_classes = (KeyThrottle,)
    required_scope = "models:read"

    def visible(self, request: Request) -> list[CallableModel]:
        """Return the published models that the key may call, by name."""
        names = cast(ApiKey, request.auth).allowed_models
        models = driver.current().refresh().models_by_name()
        return [model for model in models if not names or model.name in names]


class ModelsView(_ModelsView):
    @extend_schema(
        operation_id="listModels",
        summary="The models this key may call",
        responses=ModelListSerializer,
    )
    def get(self, request: Request) -> Response:
        data = [model_cards.summary(model) for model in self.visible(request)]
        return Response({"data": data, "next_cursor": None})


class ModelView(_ModelsView):
    @extend_schema(
        operation_id="getModel",
        summary="A model, its signature and an example",
        responses=ModelSerializer,
    )
    def get(self, request: Request, model: str) -> Response:
        for candidate in self.visible(request):
            if candidate.name == model:
                limits = plans.limits_of(cast(ApiKey, request.auth).customer)
                return Response(model_cards.card(candidate, limits))
        raise ApiError(ErrorCode.NOT_FOUND, "There is no such model.")


def _head(request: HttpRequest) -> Head:
    headers = [
        (name.lower().encode(), value.encode("latin-1", "replace"))
        for name, value in request.headers.items()
    ]
    # One id for the answer and for the site's log line.
    request_id = getattr(request, "request_id", None)
    if request_id is not None:
        headers.append((b"x-request-id", request_id.encode()))
    return call_headers.read(headers)


def _read_body(request: HttpRequest, limit: int) -> bytes:
    length = request.META.get("CONTENT_LENGTH") or "0"
    if length.isdigit() and int(length) > limit:
        raise refusals.body_too_large(limit)
    body = request.read(limit + 1)
    if len(body) > limit:
        raise refusals.body_too_large(limit)
    return body


def _respond(answer: Answer) -> HttpResponse:
    return HttpResponse(
        answer.body,
        status=answer.status,
        headers=_readable(answer.headers),
    )


def _readable(headers: Headers) -> dict[str, str]:
    return {name.decode().title(): value.decode() for name, value in headers}
