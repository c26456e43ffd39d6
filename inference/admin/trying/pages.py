"""Show the page on which a person calls a version, and read the files given there."""

import io
from typing import Any

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect, JsonResponse
from django.shortcuts import render
from django.urls import reverse
from django.views.decorators.http import require_http_methods, require_POST

from accounts.customers import personal_keys
from inference.admin import state_labels
from inference.admin.trying import fields, rows
from inference.api import driver
from inference.api.openapi.examples import working_instances
from inference.api.openapi.typed_operations import can_explain
from inference.conditions.reading import VersionStates
from inference.conditions.states import TROUBLES, ServingState
from inference.errors.api_error import ApiError
from inference.snapshot.targets import ModelEntry, Target
from registry import routes
from registry.models import ModelVersion
from registry.routes import RouteError

MOVE_ROUTE = "registry.change_route"
# Wide tables show so many fields at first; the others are one click away.
FIRST_FIELDS = 12
_FURTHER_PROBLEMS = 10
# Who calls a version in such a state is refused; a waiting one may load when called.
_AWAY = TROUBLES | {ServingState.LOADING}


def url_of(version: ModelVersion) -> str:
    return reverse("admin:registry_modelversion_try", args=[version.pk])


@require_http_methods(["GET", "HEAD", "POST"])
def page(request: HttpRequest, version: ModelVersion, *, site: Any) -> HttpResponse:
    """Show the form, or why the version cannot be called; a POST publishes it."""
    _require_key_holder(request)
    if request.method == "POST":
        return _publish(request, version, site=site)
    entry, target = _find(version)
    context = {
        **site.each_context(request),
        "title": f"Try {version}",
        "version": version,
        "page_url": reverse("admin:registry_modelversion_change", args=[version.pk]),
    }
    state = VersionStates([version.registered_model.name]).of(version)
    if entry is None or target is None or not target.engines or state.state in _AWAY:
        context |= {
            "state": state,
            "state_label": state_labels.label(state),
            "may_publish": request.user.has_perm(MOVE_ROUTE),
        }
        return render(request, "inference/try_not_callable.html", context)
    answer = render(
        request, "inference/try.html", context | _form(version, entry, target)
    )
    if "HX-Request" in request.headers:
        # The page that waits for the version asks again and again.
        answer["HX-Refresh"] = "true"
    return answer


@require_POST
def read_rows(request: HttpRequest, version: ModelVersion) -> JsonResponse:
    """Answer with the instances of an uploaded CSV file, or with what is wrong."""
    _require_key_holder(request)
    _, target = _find(version)
    file = request.FILES.get("file")
    if target is None:
        return _problem("This version cannot be called any more.")
    if file is None:
        return _problem("Choose a file.")
    if file.size is None or file.size > rows.MOST_BYTES:
        return _problem(f"The file is larger than {rows.MOST_BYTES >> 20} MiB.")
    try:
        found = rows.read(io.BytesIO(file.read()), target.signature)
    except ApiError as error:
        return _problem(error.message, error.further_details(_FURTHER_PROBLEMS))
    return JsonResponse({"instances": found})


def _problem(text: str, details: list[str] | None = None) -> JsonResponse:
    return JsonResponse({"problem": text, "details": details or []}, status=422)


def _require_key_holder(request: HttpRequest) -> None:
    """Refuse people who may have no key, since the page calls with one."""
    if not personal_keys.may_hold(request.user):
        raise PermissionDenied


def _find(version: ModelVersion) -> tuple[ModelEntry | None, Target | None]:
    """Find what callers get under the version's number, if they get anything."""
    entry = driver.current().refresh().models.get(version.registered_model.name)
    if entry is None:
        return None, None
    return entry, entry.numbered(version.version)


def _publish(request: HttpRequest, version: ModelVersion, *, site: Any) -> HttpResponse:
    if not request.user.has_perm(MOVE_ROUTE):
        raise PermissionDenied
    try:
        routes.publish(version, by=request.user)
    except RouteError as error:
        messages.error(request, str(error))
    else:
        said = f"{version} can be called by its number once the engines have it loaded."
        # Versions have no history of their own, so the admin's log keeps this.
        site._registry[ModelVersion].log_change(request, version, said)
        messages.success(request, said)
    return HttpResponseRedirect(request.path)


def _form(version: ModelVersion, entry: ModelEntry, target: Target) -> dict[str, Any]:
    signature = target.signature
    instances, logged = working_instances(signature, version.input_example)
    if logged and isinstance(version.input_example, list):
        instances = version.input_example[: rows.MOST_ROWS]
    row = fields.of_row(signature, instances[0] if instances else None)
    default = entry.default
    others = [other for other in entry.targets if other.version != target.version]
    explainable = can_explain(signature)
    return {
        "first_fields": row[:FIRST_FIELDS],
        "further_fields": row[FIRST_FIELDS:],
        # People choose an image of their own.
        "made_up": not logged and signature.image is None,
        "rows_logged": len(instances) if logged else 0,
        "takes_files": rows.takes_files(signature),
        "params": signature.params,
        "explainable": explainable,
        "others": others,
        "beside": default.version if default is not None else "",
        "data": {
            "model": version.registered_model.name,
            "version": target.version,
            "named": bool(signature.columns or row[0].name) if row else False,
            "example": instances,
            "explainable": explainable,
            "most": rows.MOST_ROWS,
            "keyUrl": reverse("key-for-a-page"),
            "rowsUrl": reverse(
                "admin:registry_modelversion_try_rows", args=[version.pk]
            ),
        },
    }
