"""Build the OpenAPI document: generic operations from views, typed ones per model."""

import functools
import re
from collections.abc import Iterable
from typing import Any

from django.conf import settings
from drf_spectacular.extensions import OpenApiAuthenticationExtension
from drf_spectacular.generators import SchemaGenerator

from inference.api.openapi import common_parts as common
from inference.api.openapi import gateway_operations, shared_schemas
from inference.api.openapi.answer_examples import EXAMPLES
from inference.api.openapi.descriptions import described
from inference.api.openapi.typed_operations import (
    PublishedModel,
    component_prefixes,
    example_instances,
    tag,
    typed_parts,
)

JsonObject = dict[str, Any]

_API = "/api/v1/"
_METHODS = ("get", "post", "put", "patch", "delete")

# First segment of a path below /api/v1/ → tag and description, in the order of the
# docs.
_TAGS = {
    "models": ("Models", "Call any model by name; typed operations follow below."),
    "predict": ("Models", ""),
    "uploads": ("Uploads", "Send a large input first, then name it as `input_uri`."),
    "jobs": ("Jobs", "Predictions over many rows, in the background."),
    "feedback": ("Feedback", "Say how good answers were, until a week later."),
    "me": ("Account", "Your plan, your limits and what you have used."),
    "usage": ("Account", ""),
}
_OTHER_TAG = "Other"
# The address of this path holds a signature instead of a key.
_SIGNED_PATH = "/content"
_SIGNED_STATUSES = (404, 409, 410, 500, 503, *common.BODY_STATUSES)
# Additional statuses of single operations, for queries that cannot be read, jobs that
# have not ended and outputs that are gone.
_OWN_STATUSES: dict[str, tuple[int, ...]] = {
    "listJobs": (400,),
    "submitJob": (409, 410),
    "cancelJob": (409,),
    "getJobResult": (409, 410),
    "getJobErrors": (409, 410),
    "createJobResultLink": (409, 410),
    "getUsage": (400,),
    "sendFeedback": (404,),
}
# The body of these may name the model, so they can show an example of one model.
_NAMES_ITS_MODEL = ("/api/v1/predict", "/api/v1/predict/batch")


class ApiKeyScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    """Describe our API keys to drf-spectacular."""

    target_class = "accounts.api.authentication.ApiKeyAuthentication"
    name = list(common.SECURITY_SCHEMES)

    def get_security_requirement(self, auto_schema: Any) -> list[dict[str, list[str]]]:
        # One of the two headers is enough.
        return common.SECURITY

    def get_security_definition(self, auto_schema: Any) -> list[dict[str, Any]]:
        return list(common.SECURITY_SCHEMES.values())


@functools.cache
def general() -> JsonObject:
    """Return the document without typed operations, cached; do not change it."""
    document: JsonObject = SchemaGenerator().get_schema(request=None, public=True)  # type: ignore[no-untyped-call]
    return document


def complete(
    result: JsonObject, generator: Any, request: Any, public: bool
) -> JsonObject:
    """Add what views do not declare to the document that drf-spectacular generated."""
    document = result
    components = document.setdefault("components", {})
    for kind, parts in common.components().items():
        components.setdefault(kind, {}).update(parts)
    components["schemas"] |= (
        shared_schemas.SCHEMAS | common.SCHEMAS | gateway_operations.SCHEMAS
    )
    components["schemas"] = {
        name: described(schema, name)
        for name, schema in sorted(components["schemas"].items())
    }
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
    document["paths"].update(gateway_operations.paths())
    _add_examples(document)
    order = [name for name, _ in _TAGS.values()]
    document["tags"] = [
        {"name": name, **({"description": tags[name]} if tags[name] else {})}
        for name in sorted(tags, key=lambda name: (*order, name).index(name))
    ]
    document["tags"] += [
        gateway_operations.OPEN_INFERENCE_TAG,
        gateway_operations.HEALTH_TAG,
    ]
    document["servers"] = [{"url": settings.MODELYARD_PUBLIC_URL}]
    # Leave out errors of no documented operation, such as wrong methods.
    text = str(document["paths"])
    components["responses"] = {
        name: response
        for name, response in components["responses"].items()
        if f"/responses/{name}'" in text
    }
    return document


def with_models(models: Iterable[PublishedModel], *, server: str) -> JsonObject:
    """Add the typed operations of these models to the general document."""
    models = list(models)
    document = dict(general())
    paths, components = {**document["paths"]}, {**document["components"]}
    schemas = {**components["schemas"]}
    shown: JsonObject = {}
    _show_rows(paths, models)
    prefixes = component_prefixes([model.name for model in models])
    for model in models:
        parts = typed_parts(model, prefix=prefixes[model.name])
        for whole, part in zip((paths, schemas, shown), parts, strict=True):
            whole.update(part)
    components["schemas"] = schemas
    if shown:
        components["examples"] = shown
    groups = document["tags"]
    document |= {
        "servers": [{"url": server}],
        "paths": paths,
        "components": components,
        "tags": [*groups, *(tag(model) for model in models)],
        # ReDoc shows these as the two parts of its menu.
        "x-tagGroups": [{"name": "API", "tags": [group["name"] for group in groups]}],
    }
    if models:
        names = [model.name for model in models]
        document["x-tagGroups"].append({"name": "Published models", "tags": names})
    return document


def _tag_of(path: str) -> tuple[str, str]:
    segment = re.split(r"[/{]", path.removeprefix(_API), maxsplit=1)[0]
    return _TAGS.get(segment, (_OTHER_TAG, ""))


def _complete_operation(
    operation: JsonObject, *, tag_name: str, keyless: bool, predicts: bool
) -> None:
    """Add the shared answers and headers to a generic operation."""
    operation["tags"] = [tag_name]
    operation["security"] = [] if keyless else common.SECURITY
    for parameter in operation.get("parameters", ()):
        shared = _SHARED_PARAMETERS.get(parameter["name"])
        if shared is not None:
            parameter["description"] = shared
    if keyless:
        operation["responses"].update(common.error_responses(_SIGNED_STATUSES))
        return
    statuses = common.COMMON_STATUSES
    if predicts:
        statuses = common.PREDICTION_STATUSES
    elif "requestBody" in operation:
        statuses = (*common.COMMON_STATUSES, *common.BODY_STATUSES)
    responses = operation.setdefault("responses", {})
    for status, response in responses.items():
        if status[0] == "2" and "$ref" not in response:
            headers = common.answer_headers(
                prediction=predicts,
                about_a_model=operation["operationId"] == "submitJob",
            )
            response.setdefault("headers", {}).update(headers)
            response["description"] = response["description"] or "The answer."
    own = _OWN_STATUSES.get(operation["operationId"], ())
    responses.update(common.error_responses((*statuses, *own)))


# Descriptions of parameters in paths, which views only name.
_SHARED_PARAMETERS = {
    "model": common.PARAMETERS["ModelName"]["description"],
    "version": common.PARAMETERS["VersionName"]["description"],
    "job_id": "`id` of the job.",
    "upload_id": "Part of the `upload_url`.",
}


def _add_examples(document: JsonObject) -> None:
    """Add an example answer to every operation that is not a prediction."""
    for operations in document["paths"].values():
        for operation in operations.values():
            example = EXAMPLES.get(operation.get("operationId"))
            if example is None:
                continue
            for status, response in operation["responses"].items():
                if status[0] == "2":
                    response["content"]["application/json"]["example"] = example


def _show_rows(paths: JsonObject, models: list[PublishedModel]) -> None:
    """Add example rows of one model to the operations whose body names the model."""
    model, instances = next(
        (
            (model, instances)
            for model in models
            if not model.pinned and (instances := example_instances(model))
        ),
        (None, None),
    )
    if model is None:
        return
    example = {
        "summary": f"Rows logged with {model.name}",
        "value": {"model": model.name, "instances": instances},
    }
    for path in _NAMES_ITS_MODEL:
        operation = paths[path]["post"]
        body = operation["requestBody"]
        as_json = {
            **body["content"]["application/json"],
            "examples": {"logged": example},
        }
        content = {**body["content"], "application/json": as_json}
        paths[path] = {
            **paths[path],
            "post": {**operation, "requestBody": {**body, "content": content}},
        }
