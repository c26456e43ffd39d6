"""Pages for people who call the API: start page, typed docs, error codes."""

import functools
import hashlib
from collections.abc import Callable
from typing import Any, TypeVar, cast
from urllib.parse import quote

import msgspec
from csp.decorators import csp_update
from django.conf import settings
from django.contrib.staticfiles import finders
from django.core.cache import caches
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import render
from django.utils.cache import get_conditional_response
from django.utils.decorators import method_decorator
from django.utils.http import quote_etag
from django.views.decorators.cache import cache_control
from django.views.decorators.vary import vary_on_headers
from django_ratelimit.decorators import ratelimit
from drf_spectacular.plumbing import set_query_parameters
from drf_spectacular.renderers import OpenApiJsonRenderer, OpenApiYamlRenderer
from drf_spectacular.utils import extend_schema
from drf_spectacular.views import (
    SpectacularAPIView,
    SpectacularRedocView,
    SpectacularSwaggerSplitView,
)
from rest_framework.authentication import SessionAuthentication
from rest_framework.renderers import BaseRenderer, JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response

from accounts.api.authentication import ApiKeyAuthentication
from config.middleware.client_address import client_address
from inference.api.openapi import document
from inference.api.openapi.common_parts import SECURITY_SCHEMES
from inference.api.openapi.published import visible_models
from inference.api.openapi.typed_operations import PublishedModel, example_instances
from inference.errors.advice import ADVICE
from inference.errors.api_error import STATUS, ApiError, ErrorCode

# Far more than a person needs, far fewer than a program could request.
PAGES_PER_MINUTE = "240/m"

_View = TypeVar("_View", bound=Callable[..., Any])


def throttled(view: _View) -> _View:
    """Refuse an address that requests too many pages."""
    limit = ratelimit(group="docs", key=client_address, rate=PAGES_PER_MINUTE)
    return cast(_View, limit(view))


_TITLE = "Modelyard API"


@method_decorator(throttled, name="dispatch")
@method_decorator(
    vary_on_headers("Authorization", "X-API-Key", "Cookie"), name="dispatch"
)
class SchemaView(SpectacularAPIView):
    """Serve the OpenAPI document with the models that the caller may call.

    A few models share one document; with more than MODELYARD_DOCUMENTED_MODELS, each
    model has its own: `?model=NAME`.
    """

    authentication_classes = [ApiKeyAuthentication, SessionAuthentication]
    renderer_classes = [OpenApiJsonRenderer, OpenApiYamlRenderer, JSONRenderer]

    @extend_schema(exclude=True)
    def get(self, request: Request) -> HttpResponseBase:
        """Answer from the cache, whose key is a digest of all that the document shows.

        So the cache can never be stale.
        """
        models = _documented(visible_models(request), request.GET.get("model"))
        server = request.build_absolute_uri("/").rstrip("/")
        renderer = request.accepted_renderer
        shown = msgspec.json.encode((models, server, renderer.format, _edition()))
        etag = quote_etag(hashlib.sha256(shown).hexdigest()[:32])
        whole = HttpResponse(
            content_type=renderer.media_type,
            headers={"Cache-Control": "private, no-cache", "ETag": etag},
        )
        unchanged = get_conditional_response(request._request, etag, None, whole)
        if unchanged is not None and unchanged is not whole:
            return unchanged
        whole.content = _rendered(etag, models, server, renderer)
        return whole


@functools.cache
def _edition() -> str:
    """Return a digest of the general document, which differs between releases."""
    return hashlib.sha256(msgspec.json.encode(document.general())).hexdigest()


def _documented(models: list[PublishedModel], name: str | None) -> list[PublishedModel]:
    """Return the models that a document shows; raise ApiError if `name` is unknown."""
    if name:
        chosen = [model for model in models if model.name == name]
        if not chosen:
            message = "There is no such model, or you cannot call any of its versions."
            raise ApiError(ErrorCode.NOT_FOUND, message)
        return chosen
    return [] if len(models) > settings.MODELYARD_DOCUMENTED_MODELS else models


def _rendered(
    key: str, models: list[PublishedModel], server: str, renderer: BaseRenderer
) -> bytes:
    documents = caches["documents"]
    content: bytes | None = documents.get(key)
    if content is None:
        whole = document.with_models(models, server=server)
        if isinstance(renderer, OpenApiYamlRenderer):
            content = renderer.render(whole)  # type: ignore[no-untyped-call]
        else:
            # Without indentation, which would triple the size.
            content = msgspec.json.encode(whole)
        documents.set(key, content)
    assert content is not None
    return content


class _ModelPicker:
    """Let people choose one model if there are too many for one document."""

    @extend_schema(exclude=True)
    def get(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        names = [model.name for model in visible_models(request)]
        response: Response = super().get(request, *args, **kwargs)  # type: ignore[misc]  # mixed into a view of drf-spectacular
        response.data |= {
            "chosen": request.GET.get("model", ""),
            "names": names,
            "one_for_all": len(names) <= settings.MODELYARD_DOCUMENTED_MODELS,
        }
        return response

    def _get_schema_url(self, request: Request) -> str:
        url: str = super()._get_schema_url(request)  # type: ignore[misc]  # as above
        name = request.GET.get("model")
        known = name in {model.name for model in visible_models(request)}
        return set_query_parameters(url, format="json", model=name if known else None)


@method_decorator(throttled, name="dispatch")
class SwaggerView(_ModelPicker, SpectacularSwaggerSplitView):
    """Swagger UI; its script has its own URL, because inline scripts are forbidden."""

    authentication_classes = [SessionAuthentication]
    template_name = "config/swagger.html"
    title = _TITLE

    def _get_schema_auth_names(self) -> list[str]:
        """Let the script fetch the document again with a key that a person typed in."""
        return list(SECURITY_SCHEMES)


# ReDoc adds inline styles to the page.
_REDOC_POLICY = {"style-src": "'unsafe-inline'", "worker-src": "blob:"}


@method_decorator(throttled, name="dispatch")
@method_decorator(csp_update(_REDOC_POLICY), name="dispatch")
class RedocView(_ModelPicker, SpectacularRedocView):
    authentication_classes = [SessionAuthentication]
    template_name = "config/redoc.html"
    title = _TITLE


_IN_REDOC = {
    # A logo that it loads from its maker's host.
    "https://cdn.redoc.ly/redoc/logo-mini.svg": "/static/modelyard/favicon.svg",
    # The colour of patterns, which no theme sets and nobody can read in the dark.
    "color: #0e7c86;": "color: var(--subtle);",
}


@cache_control(public=True, max_age=86_400)
def redoc_bundle(request: HttpRequest) -> HttpResponse:
    """Serve ReDoc's script with a few words replaced."""
    path = finders.find("drf_spectacular_sidecar/redoc/bundles/redoc.standalone.js")
    assert isinstance(path, str), "drf-spectacular-sidecar carries ReDoc"
    with open(path, encoding="utf-8") as file:
        script = file.read()
    for theirs, ours in _IN_REDOC.items():
        script = script.replace(theirs, ours)
    return HttpResponse(script, content_type="text/javascript; charset=utf-8")


@throttled
def start(request: HttpRequest) -> HttpResponse:
    """Show what this site is, with a first call to paste."""
    models = visible_models(request)  # type: ignore[arg-type]
    shown = models[: settings.MODELYARD_DOCUMENTED_MODELS]
    return render(
        request,
        "config/start.html",
        {
            "models": shown,
            "more": len(models) - len(shown),
            "first_call": _first_call(request, models),
        },
    )


def _first_call(request: HttpRequest, models: list[PublishedModel]) -> dict[str, str]:
    """Return a command that works once the reader puts in a key."""
    url = request.build_absolute_uri("/api/v1/models")
    for model in models:
        instances = example_instances(model)
        if instances is None or model.pinned:
            continue
        body = msgspec.json.encode({"instances": instances[:1]}).decode()
        # Within single quotes, a shell treats only the quote itself specially.
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
