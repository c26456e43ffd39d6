"""The pages for people who call the API: start page, typed docs, error codes."""

import hashlib
from collections.abc import Callable
from typing import Any, TypeVar, cast
from urllib.parse import quote

import msgspec
from csp.decorators import csp_update
from django.contrib.staticfiles import finders
from django.core.cache import caches
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils.decorators import method_decorator
from django.views.decorators.cache import cache_control
from django.views.decorators.vary import vary_on_headers
from django_ratelimit.decorators import ratelimit
from drf_spectacular.renderers import OpenApiJsonRenderer, OpenApiYamlRenderer
from drf_spectacular.utils import extend_schema
from drf_spectacular.views import (
    SpectacularAPIView,
    SpectacularRedocView,
    SpectacularSwaggerSplitView,
)
from rest_framework.authentication import SessionAuthentication
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response

from accounts.authentication import ApiKeyAuthentication
from config.client_address import client_address
from inference.error_advice import ADVICE
from inference.errors import STATUS
from inference.openapi.common_parts import SECURITY_SCHEMES
from inference.openapi.document import visible_models
from inference.openapi.typed_operations import PublishedModel, example_instances

# Far more than a person needs, far less than a machine could ask for.
PAGES_PER_MINUTE = "240/m"

_View = TypeVar("_View", bound=Callable[..., Any])


def throttled(view: _View) -> _View:
    """Refuse an address that asks for too many pages."""
    limit = ratelimit(group="docs", key=client_address, rate=PAGES_PER_MINUTE)
    return cast(_View, limit(view))


_TITLE = "Modelyard API"


@method_decorator(throttled, name="dispatch")
@method_decorator(
    vary_on_headers("Authorization", "X-API-Key", "Cookie"), name="dispatch"
)
class SchemaView(SpectacularAPIView):
    """Serve the OpenAPI document with what the caller may call."""

    authentication_classes = [ApiKeyAuthentication, SessionAuthentication]
    renderer_classes = [OpenApiJsonRenderer, OpenApiYamlRenderer, JSONRenderer]

    @extend_schema(exclude=True)
    def get(self, request: Request) -> Response:
        """Answer from the cache while nothing that the document shows has changed.

        The key is made of the models themselves, so that it can never be stale.
        """
        models = visible_models(request)
        digest = hashlib.sha256(msgspec.json.encode(models)).hexdigest()
        documents = caches["documents"]
        document = documents.get(digest)
        if document is None:
            answer: Response = super().get(request)  # type: ignore[no-untyped-call]
            document = answer.data
            documents.set(digest, document)
        return Response(document, headers={"Cache-Control": "private, no-cache"})


@method_decorator(throttled, name="dispatch")
class SwaggerView(SpectacularSwaggerSplitView):
    """Swagger UI; its script has a URL of its own, so that no inline one is needed."""

    authentication_classes = [SessionAuthentication]
    template_name = "config/swagger.html"
    title = _TITLE

    def _get_schema_auth_names(self) -> list[str]:
        """Let its script fetch the document again with a key that was typed in."""
        return list(SECURITY_SCHEMES)


# ReDoc writes its styles into the page as it draws.
_REDOC_POLICY = {"style-src": "'unsafe-inline'", "worker-src": "blob:"}


@method_decorator(throttled, name="dispatch")
@method_decorator(csp_update(_REDOC_POLICY), name="dispatch")
class RedocView(SpectacularRedocView):
    authentication_classes = [SessionAuthentication]
    template_name = "config/redoc.html"
    title = _TITLE


@cache_control(public=True, max_age=86_400)
def redoc_bundle(request: HttpRequest) -> HttpResponse:
    """Serve the sidecar's ReDoc without the logo that it fetches from its maker."""
    path = finders.find("drf_spectacular_sidecar/redoc/bundles/redoc.standalone.js")
    assert isinstance(path, str), "drf-spectacular-sidecar carries ReDoc"
    with open(path, encoding="utf-8") as file:
        script = file.read()
    script = script.replace(
        "https://cdn.redoc.ly/redoc/logo-mini.svg", "/static/modelyard/favicon.svg"
    )
    return HttpResponse(script, content_type="text/javascript; charset=utf-8")


@throttled
def start(request: HttpRequest) -> HttpResponse:
    """Say what this is and show the first call."""
    models = visible_models(request)  # type: ignore[arg-type]
    return render(
        request,
        "config/start.html",
        {"models": models, "first_call": _first_call(request, models)},
    )


def _first_call(request: HttpRequest, models: list[PublishedModel]) -> dict[str, str]:
    """Build a command that works when pasted, once a key is put in."""
    url = request.build_absolute_uri("/api/v1/models")
    for model in models:
        instances = example_instances(model)
        if instances is None or model.pinned:
            continue
        body = msgspec.json.encode({"instances": instances[:1]}).decode()
        # Within single quotes a shell reads everything but the quote itself.
        quoted = body.replace("'", "'\\''")
        return {
            "title": f"Ask {model.name}",
            "command": f"curl {url}/{quote(model.name, safe='')}/predict \\\n"
            "  -H 'Authorization: Bearer YOUR_API_KEY' \\\n"
            f"  --json '{quoted}'",
        }
    return {
        "title": "See what your key may call",
        "command": f"curl {url} \\\n  -H 'Authorization: Bearer YOUR_API_KEY'",
    }


@throttled
def errors(request: HttpRequest) -> HttpResponse:
    """Explain every error code; error bodies link here."""
    codes = [
        {
            "code": code.value,
            "anchor": code.value.lower(),
            "status": STATUS[code],
            "when": advice.when,
            "action": advice.action,
        }
        for code, advice in ADVICE.items()
    ]
    return render(request, "config/errors.html", {"codes": codes})


@cache_control(public=True, max_age=86_400)
def robots(request: HttpRequest) -> HttpResponse:
    return HttpResponse(
        "User-agent: *\nDisallow: /admin/\nDisallow: /api/\n", content_type="text/plain"
    )
