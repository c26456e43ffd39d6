"""Predictions over Django: the gateway's paths, the same plan, the same answers.

The plan authenticates, admits and reads the raw body itself, so these views have
neither authenticators nor parsers of DRF; serializers only tell what the bodies hold.
"""

from typing import Any, NoReturn, cast

from django.http import HttpRequest, HttpResponse
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.permissions import IsAuthenticated
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from accounts import plans
from accounts.authentication import HasScope
from accounts.models import ApiKey
from accounts.throttling import KeyThrottle
from inference import call_headers, front, model_cards, refusals
from inference.errors import ApiError, ErrorCode
from inference.prediction import Answer, Call, Operation
from inference.serializers import (
    BatchAnswerSerializer,
    BatchRequestSerializer,
    ExplainAnswerSerializer,
    ExplainRequestSerializer,
    ModelListSerializer,
    ModelSerializer,
    PredictAnswerSerializer,
    PredictRequestSerializer,
    SiteBatchRequestSerializer,
    SitePredictRequestSerializer,
)
from inference.snapshot import CallableModel

_EXPLAIN = OpenApiParameter(
    name="explain", type=bool, description="Also explain each prediction."
)


class _PlanView(APIView):
    """Hand a request to the plan and its answer back, byte for byte."""

    authentication_classes = ()
    permission_classes = ()
    parser_classes = ()
    throttle_classes = ()
    http_method_names = ("post",)
    operation: Operation

    def perform_content_negotiation(
        self, request: Request, force: bool = False
    ) -> tuple[Any, str]:
        # The plan reads Accept itself.
        return JSONRenderer(), "application/json"

    @property
    def default_response_headers(self) -> dict[str, str]:
        # All headers are the plan's.
        return {}

    def http_method_not_allowed(
        self, request: HttpRequest, *args: Any, **kwargs: Any
    ) -> NoReturn:
        self.headers["Allow"] = "POST"
        raise ApiError(ErrorCode.METHOD_NOT_ALLOWED, "Send predictions by POST.")

    def post(
        self, request: Request, model: str | None = None, version: str | None = None
    ) -> HttpResponse:
        wsgi_request = request._request
        call = Call(
            operation=self.operation,
            headers=_headers(wsgi_request),
            model=model,
            version=version,
            explain=_asks_to_explain(wsgi_request),
        )
        return _respond(
            front.current().answer(call, lambda limit: _read_body(wsgi_request, limit))
        )


class PredictView(_PlanView):
    operation = "predict"

    @extend_schema(
        operation_id="predict",
        summary="Predict a few rows",
        parameters=[_EXPLAIN],
        request=PredictRequestSerializer,
        responses=PredictAnswerSerializer,
    )
    def post(
        self, request: Request, model: str | None = None, version: str | None = None
    ) -> HttpResponse:
        return super().post(request, model, version)


class PredictVersionView(PredictView):
    @extend_schema(
        operation_id="predict_with_version",
        summary="Predict with one version",
        parameters=[_EXPLAIN],
        request=PredictRequestSerializer,
        responses=PredictAnswerSerializer,
    )
    def post(
        self, request: Request, model: str | None = None, version: str | None = None
    ) -> HttpResponse:
        return super().post(request, model, version)


class SitePredictView(PredictView):
    @extend_schema(
        operation_id="predict_with_default_model",
        summary="Predict with the site's default model",
        parameters=[_EXPLAIN],
        request=SitePredictRequestSerializer,
        responses=PredictAnswerSerializer,
    )
    def post(
        self, request: Request, model: str | None = None, version: str | None = None
    ) -> HttpResponse:
        return super().post(request, model, version)


class BatchView(_PlanView):
    operation = "batch"

    @extend_schema(
        operation_id="predict_batch",
        summary="Predict many rows",
        request=BatchRequestSerializer,
        responses=BatchAnswerSerializer,
    )
    def post(
        self, request: Request, model: str | None = None, version: str | None = None
    ) -> HttpResponse:
        return super().post(request, model, version)


class BatchVersionView(BatchView):
    @extend_schema(
        operation_id="predict_batch_with_version",
        summary="Predict many rows with one version",
        request=BatchRequestSerializer,
        responses=BatchAnswerSerializer,
    )
    def post(
        self, request: Request, model: str | None = None, version: str | None = None
    ) -> HttpResponse:
        return super().post(request, model, version)


class SiteBatchView(BatchView):
    @extend_schema(
        operation_id="predict_batch_with_default_model",
        summary="Predict many rows with the site's default model",
        request=SiteBatchRequestSerializer,
        responses=BatchAnswerSerializer,
    )
    def post(
        self, request: Request, model: str | None = None, version: str | None = None
    ) -> HttpResponse:
        return super().post(request, model, version)


class ExplainView(_PlanView):
    operation = "explain"

    @extend_schema(
        operation_id="explain",
        summary="Predict and explain",
        description="SHAP values of each instance. `Accept: image/svg+xml` gives a "
        "waterfall plot of the first.",
        request=ExplainRequestSerializer,
        responses=ExplainAnswerSerializer,
    )
    def post(
        self, request: Request, model: str | None = None, version: str | None = None
    ) -> HttpResponse:
        return super().post(request, model, version)


class ExplainVersionView(ExplainView):
    @extend_schema(
        operation_id="explain_with_version",
        summary="Predict and explain with one version",
        request=ExplainRequestSerializer,
        responses=ExplainAnswerSerializer,
    )
    def post(
        self, request: Request, model: str | None = None, version: str | None = None
    ) -> HttpResponse:
        return super().post(request, model, version)


class _ModelsView(APIView):
    permission_classes = (IsAuthenticated, HasScope)
    throttle_classes = (KeyThrottle,)
    required_scope = "models:read"

    def visible(self, request: Request) -> list[CallableModel]:
        """Return the published models that the key may call, by name."""
        names = cast(ApiKey, request.auth).allowed_models
        models = front.current().refresh().snapshot.models
        return [model for model in models if not names or model.name in names]


class ModelsView(_ModelsView):
    @extend_schema(
        operation_id="list_models",
        summary="The models this key may call",
        responses=ModelListSerializer,
    )
    def get(self, request: Request) -> Response:
        data = [model_cards.summary(model) for model in self.visible(request)]
        return Response({"data": data, "next_cursor": None})


class ModelView(_ModelsView):
    @extend_schema(
        operation_id="get_model",
        summary="A model, its signature and an example",
        responses=ModelSerializer,
    )
    def get(self, request: Request, model: str) -> Response:
        for candidate in self.visible(request):
            if candidate.name == model:
                limits = plans.limits_of(cast(ApiKey, request.auth).customer)
                return Response(model_cards.card(candidate, limits))
        raise ApiError(ErrorCode.NOT_FOUND, "There is no such model.")


def _headers(request: HttpRequest) -> dict[bytes, bytes]:
    headers = call_headers.select(
        (name.lower().encode(), value.encode("latin-1", "replace"))
        for name, value in request.headers.items()
    )
    # One id for the answer and for the site's log line.
    request_id = getattr(request, "request_id", None)
    if request_id is not None:
        headers[b"x-request-id"] = request_id.encode()
    return headers


def _asks_to_explain(request: HttpRequest) -> bool:
    query = request.META.get("QUERY_STRING", "").lower().split("&")
    return not {"explain=true", "explain=1"}.isdisjoint(query)


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
        headers={
            name.decode().title(): value.decode() for name, value in answer.headers
        },
    )
