"""The OpenAPI document: generic operations from the views, typed ones per model."""

import re
from collections.abc import Callable
from typing import Any

import django.db
from django.conf import settings
from django.contrib.auth.models import User
from django.utils import timezone
from drf_spectacular.extensions import OpenApiAuthenticationExtension
from rest_framework.request import Request

from accounts.models import ApiKey
from inference.callable_versions import (
    CatalogModel,
    NotCallable,
    callable_version,
    read_catalog,
)
from inference.openapi import common_parts as common
from inference.openapi import gateway_operations
from inference.openapi.schemas import is_tabular
from inference.openapi.typed_operations import (
    PublishedModel,
    component_prefixes,
    example_instances,
    tag,
    typed_parts,
)
from inference.snapshot import CallableVersion

_Test = Callable[[CatalogModel], bool]

_API = "/api/v1/"
_METHODS = ("get", "post", "put", "patch", "delete")

# First segment of a path below /api/v1/ → where the docs list the operation; in the
# order of the docs.
_TAGS = {
    "models": ("Models", "Call any model by name; typed operations follow below."),
    "predict": ("Models", ""),
    "uploads": ("Uploads", "Send a large input first, then name it as `input_uri`."),
    "jobs": ("Jobs", "Predictions over many rows, in the background."),
    "me": ("Account", "Your plan, your limits and what you have used."),
    "usage": ("Account", ""),
}
_OTHER_TAG = "Other"
# Its address carries a signature instead of a key.
_SIGNED_PATH = "/content"
_SIGNED_STATUSES = (404, 409, 410, 500, 503, *common.BODY_STATUSES)
# Of operations that need a model of their own kind, which need not be there.
_MADE_UP_BODIES = {
    "embed": {"instances": ["a text"], "options": {"normalize": True}},
    "stream": {"instances": [{"prompt": "Once upon a time"}]},
}


class ApiKeyScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    """Tell drf-spectacular how our API keys are sent."""

    target_class = "accounts.authentication.ApiKeyAuthentication"
    name = list(common.SECURITY_SCHEMES)

    def get_security_requirement(self, auto_schema: Any) -> list[dict[str, list[str]]]:
        # One of the two headers is enough.
        return common.SECURITY

    def get_security_definition(self, auto_schema: Any) -> list[dict[str, Any]]:
        return list(common.SECURITY_SCHEMES.values())


def visible_models(request: Request | None) -> list[PublishedModel]:
    """Return the models that whoever sent the request may call, by name.

    Anonymous readers see public models; a customer's people what any of its keys may
    call; staff, and a command (no request), everything.
    """
    may_call, may_explain = _permissions_of(request)
    models = (
        _published(entry, may_explain=may_explain(entry))
        for entry in read_catalog()
        if may_call(entry)
    )
    return [model for model in models if model is not None]


def _permissions_of(request: Request | None) -> tuple[_Test, _Test]:
    """Return what tells whether the sender may call a model, and may explain it."""
    key = getattr(request, "auth", None)
    user = getattr(request, "user", None)
    if isinstance(key, ApiKey):
        return _allowed_by([key], "predict"), _allowed_by([key], "explain")
    if request is None or getattr(user, "is_staff", False):
        return _everything, _everything
    if isinstance(user, User):
        keys = list(
            ApiKey.objects.valid(timezone.now()).filter(customer__members=user.pk)
        )
        if keys:
            return _allowed_by(keys, "predict"), _allowed_by(keys, "explain")
    return _is_public, _everything


def _everything(entry: CatalogModel) -> bool:
    return True


def _is_public(entry: CatalogModel) -> bool:
    return entry.model.public


def _allowed_by(keys: list[ApiKey], scope: str) -> _Test:
    names: set[str] = set()
    for key in keys:
        if scope not in key.scopes:
            continue
        if not key.allowed_models:
            return _everything
        names.update(key.allowed_models)
    return lambda entry: entry.name in names


def _published(entry: CatalogModel, *, may_explain: bool) -> PublishedModel | None:
    """Describe the version that answers; None if none of the model's can be called."""
    described: dict[int, CallableVersion] = {}
    for number, version in entry.versions.items():
        try:
            described[number] = callable_version(
                entry, version, artifacts=settings.HOME.artifacts
            )
        except NotCallable:
            continue
    default, canary = _served(entry)
    pinned = default not in described
    if pinned:
        published = [number for number in described if entry.versions[number].published]
        if not published:
            return None
        default = max(published)
    assert default is not None
    signature = described[default].signature
    return PublishedModel(
        name=entry.name,
        described=described[default],
        description=entry.model.description,
        pinned=pinned,
        explainable=may_explain
        and is_tabular(signature)
        and all(column.dtype != "str" for column in signature.columns),
        canary=canary,
    )


def _served(entry: CatalogModel) -> tuple[int | None, int | None]:
    """Return the default and canary that gateways use, or else the desired ones."""
    if entry.route is None:
        return None, None
    if entry.serving is not None and entry.serving.default_version is not None:
        return entry.serving.default_version, entry.serving.canary_version
    canary = entry.route.canary_version
    return entry.route.default_version.version, canary.version if canary else None


def add_typed_operations(
    result: dict[str, Any], generator: Any, request: Any, public: bool
) -> dict[str, Any]:
    """Complete the document that drf-spectacular made from the views."""
    try:
        models = visible_models(request)
    except django.db.DatabaseError:
        if request is not None:
            raise
        # Only `check --deploy` asks for nobody, also before there are tables.
        models = []
    return complete(result, models)


def complete(document: dict[str, Any], models: list[PublishedModel]) -> dict[str, Any]:
    """Add shared answers to every operation, then the operations of each model."""
    components = document.setdefault("components", {})
    for kind, parts in common.components().items():
        components.setdefault(kind, {}).update(parts)
    tags: dict[str, str] = {}
    for path, operations in document["paths"].items():
        if path.startswith(_API):
            name, description = _tag_of(path)
            tags[name] = tags.get(name) or description
            for method in _METHODS:
                if method in operations:
                    _complete_operation(
                        operations[method],
                        tag_name=name,
                        keyless=path.endswith(_SIGNED_PATH),
                        predicts=method == "post" and name == _TAGS["predict"][0],
                    )
            if path.endswith("/invocations"):
                operations["post"]["responses"].update(
                    common.mlflow_error_responses(common.PREDICTION_STATUSES)
                )
    _add_generic_examples(document, models)
    prefixes = component_prefixes([model.name for model in models])
    for model in models:
        paths, schemas = typed_parts(model, prefix=prefixes[model.name])
        document["paths"].update(paths)
        components["schemas"].update(schemas)
    document["paths"].update(gateway_operations.paths())
    components["schemas"].update(gateway_operations.SCHEMAS)
    order = [name for name, _ in _TAGS.values()]
    groups = [
        {"name": name, **({"description": tags[name]} if tags[name] else {})}
        for name in sorted(tags, key=lambda name: (*order, name).index(name))
    ]
    groups += [gateway_operations.OPEN_INFERENCE_TAG, gateway_operations.HEALTH_TAG]
    document["tags"] = groups + [tag(model) for model in models]
    # ReDoc shows these as the two halves of its menu.
    document["x-tagGroups"] = [
        {"name": "API", "tags": [group["name"] for group in groups]},
        *(
            [{"name": "Published models", "tags": [model.name for model in models]}]
            if models
            else []
        ),
    ]
    return document


def _tag_of(path: str) -> tuple[str, str]:
    segment = re.split(r"[/{]", path.removeprefix(_API), maxsplit=1)[0]
    return _TAGS.get(segment, (_OTHER_TAG, ""))


def _complete_operation(
    operation: dict[str, Any], *, tag_name: str, keyless: bool, predicts: bool
) -> None:
    """Give a generic operation the answers and headers that all share."""
    operation["tags"] = [tag_name]
    operation["security"] = [] if keyless else common.SECURITY
    if keyless:
        operation["responses"].update(common.error_responses(_SIGNED_STATUSES))
        return
    statuses = common.COMMON_STATUSES
    if predicts:
        statuses = common.PREDICTION_STATUSES
    elif "requestBody" in operation:
        statuses = (*common.COMMON_STATUSES, *common.BODY_STATUSES)
    responses = operation.setdefault("responses", {})
    own = tuple(int(status) for status in responses if status[0] in "45")
    for status, response in responses.items():
        if status[0] == "2" and "$ref" not in response:
            headers = common.answer_headers(prediction=predicts)
            response.setdefault("headers", {}).update(headers)
    responses.update(common.error_responses((*statuses, *own)))


def _add_generic_examples(
    document: dict[str, Any], models: list[PublishedModel]
) -> None:
    """Show rows of the first model that has some wherever any model may be called."""
    for path, operations in document["paths"].items():
        made_up = _MADE_UP_BODIES.get(path.rpartition("/")[2])
        if made_up is not None and path.startswith(_API):
            content = operations["post"]["requestBody"]["content"]["application/json"]
            content["examples"] = {"made_up": {"summary": "Made up", "value": made_up}}
    found = next(
        (
            (model, instances)
            for model in models
            if not model.pinned and (instances := example_instances(model))
        ),
        None,
    )
    if found is None:
        return
    model, instances = found
    for path, operations in document["paths"].items():
        content = _json_request(operations.get("post", {}))
        if path.endswith(tuple(_MADE_UP_BODIES)):
            continue
        if content is None or _tag_of(path)[0] != _TAGS["predict"][0]:
            continue
        body: dict[str, Any] = {"instances": instances}
        if "{model}" not in path:
            body = {"model": model.name, **body}
        content["examples"] = {
            "logged": {"summary": f"Rows logged with {model.name}", "value": body}
        }


def _json_request(operation: dict[str, Any]) -> dict[str, Any] | None:
    content = operation.get("requestBody", {}).get("content", {})
    request: dict[str, Any] | None = content.get("application/json")
    return request
