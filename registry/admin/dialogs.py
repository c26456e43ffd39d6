"""Dialogs of the admin's actions on routes and versions, and their answers."""

from collections.abc import Callable
from typing import Any
from urllib.parse import urldefrag

from django import forms
from django.contrib import messages
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import get_object_or_404
from django.utils.http import url_has_allowed_host_and_scheme
from unfold.forms import BaseDialogForm
from unfold.widgets import UnfoldAdminSelectWidget, UnfoldAdminTextInputWidget

from registry.admin.lookup import require_key
from registry.artifacts import NotAsked
from registry.models import ModelVersion, Route
from registry.routes import RouteError


class RouteChangeForm(BaseDialogForm):  # type: ignore[misc]  # unfold is untyped
    """Ask for confirmation, showing how traffic is divided now."""

    form_before_template = "registry/route_change.html"

    def get_before_template_context(
        self, request: HttpRequest, object_id: int | str | None = None
    ) -> dict[str, Any]:
        require_key(ModelVersion, str(object_id))
        versions = ModelVersion.objects.select_related("registered_model")
        version = get_object_or_404(versions, pk=str(object_id))
        route = Route.objects.select_related(*Route.VERSIONS)
        return {
            "version": version,
            "route": route.filter(registered_model=version.registered_model).first(),
        }


class ReasonForm(forms.Form):
    """Ask why the traffic changes; who has no reason to give leaves it empty."""

    why = forms.CharField(
        label="Why",
        required=False,
        max_length=300,
        help_text="Optional. The route's history keeps it.",
        widget=UnfoldAdminTextInputWidget,
    )

    @property
    def reason(self) -> str:
        return " ".join(self.cleaned_data.get("why", "").split())


class StopCanaryForm(RouteChangeForm, ReasonForm):
    """Ask for confirmation that the canary ends."""


class CanaryForm(BaseDialogForm, ReasonForm):  # type: ignore[misc]  # unfold is untyped
    """Ask for confirmation about the canary that is shown, or which one of several."""

    form_before_template = "registry/route_change.html"
    canary = forms.IntegerField(required=False, widget=forms.HiddenInput)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        require_key(Route, str(self.object_id))
        routes = Route.objects.select_related(
            "registered_model",
            *(f"{name}__registered_model" for name in Route.VERSIONS),
        )
        self.route = get_object_or_404(routes, pk=str(self.object_id))
        self.fields["canary"].initial = self.route.canary_version_id
        if len(self.route.canaries) > 1:
            self.fields["canary"] = forms.TypedChoiceField(
                coerce=int,
                choices=[
                    (version.pk, f"v{version.version}, {weight} %")
                    for version, weight in self.route.canaries
                ],
                widget=UnfoldAdminSelectWidget,
            )

    def get_before_template_context(
        self, request: HttpRequest, object_id: int | str | None = None
    ) -> dict[str, Any]:
        version = self.route.canary_version or self.route.default_version
        return {"version": version, "route": self.route}


class NewTrafficForm(RouteChangeForm):
    """Say first whether the version could answer the calls that it is to get."""

    form_before_template = "registry/new_traffic.html"


def dialog(
    title: str, *, submit: str, form: type[forms.Form] | None = None, text: str = ""
) -> dict[str, Any]:
    """Return a dialog for unfold's `@action`; without `form` it asks to confirm."""
    return {
        "title": title,
        "description": text,
        "form_class": form,
        "form_submit_text": submit,
    }


def answer(
    request: HttpRequest, change: Callable[[], object], *, done: str, otherwise: str
) -> HttpResponse:
    """Make the change, show the outcome and go back to the previous page."""
    try:
        change()
    except (RouteError, NotAsked) as error:
        messages.error(request, str(error))
    else:
        messages.success(request, done)
    return go_back(request, otherwise=otherwise)


def go_back(request: HttpRequest, *, otherwise: str) -> HttpResponse:
    """Return to the page on which the dialog was opened, or else to `otherwise`."""
    # With its fragment, browsers would scroll there instead of loading the page again.
    back = urldefrag(request.headers.get("HX-Current-URL", "")).url
    if not url_has_allowed_host_and_scheme(back, {request.get_host()}):
        back = otherwise
    return go_to(request, back)


def go_to(request: HttpRequest, page: str) -> HttpResponse:
    """Open a page after a dialog."""
    if "HX-Request" in request.headers:
        # htmx would follow a redirect inside the dialog.
        return HttpResponse(headers={"HX-Redirect": page})
    return HttpResponseRedirect(page)
