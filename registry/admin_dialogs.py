"""The small forms behind the actions of a model version."""

from typing import Any

from django import forms
from django.http import HttpRequest
from unfold.forms import BaseDialogForm
from unfold.widgets import UnfoldAdminIntegerFieldWidget

from registry.models import ModelVersion, Route


class RouteChangeForm(BaseDialogForm):  # type: ignore[misc]  # unfold is untyped
    """Ask for no more than a yes, showing how traffic is divided now."""

    form_before_template = "registry/route_change.html"

    def get_before_template_context(
        self, request: HttpRequest, object_id: int | str | None = None
    ) -> dict[str, Any]:
        version = ModelVersion.objects.select_related("registered_model").get(
            pk=str(object_id)
        )
        route = Route.objects.select_related("default_version", "canary_version")
        return {
            "version": version,
            "route": route.filter(registered_model=version.registered_model).first(),
        }


class StartCanaryForm(RouteChangeForm):
    weight_percent = forms.IntegerField(
        label="Weight in percent",
        help_text="Share of the model's requests, exact over every 100 of them.",
        min_value=0,
        max_value=100,
        initial=10,
        widget=UnfoldAdminIntegerFieldWidget,
    )
