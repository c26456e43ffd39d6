"""Routes in the admin: which versions answer, and in which shares."""

from typing import Any

from django import forms
from django.contrib import admin
from django.http import HttpRequest
from django.utils.safestring import SafeString
from unfold.decorators import display

from registry import admin_columns, routes
from registry.admin_history import HistoryAdmin
from registry.admin_sync import SyncBannerMixin
from registry.models import ModelVersion, Route


class RouteForm(forms.ModelForm):  # type: ignore[type-arg]  # not generic at run time
    """Edit the canary's weight; the default gets the rest."""

    class Meta:
        model = Route
        fields = (
            "enabled",
            "default_version",
            "canary_version",
            "canary_weight_percent",
            "low_confidence_below",
            "input_rules",
        )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        own = ModelVersion.objects.filter(
            registered_model=self.instance.registered_model_id
        ).select_related("registered_model")
        for name in ("default_version", "canary_version"):
            if name in self.fields:
                self.fields[name].queryset = own  # type: ignore[attr-defined]

    def clean(self) -> dict[str, Any]:
        data: dict[str, Any] = super().clean() or {}
        if not data.get("canary_version"):
            data["canary_weight_percent"] = 0
        weight = data.get("canary_weight_percent")
        if weight is not None:
            # Set here, because the database's own check of the sum runs after this.
            self.instance.default_weight_percent = 100 - min(weight, 100)
        for problem in routes.problems_of(
            default=data.get("default_version"),
            canary=data.get("canary_version"),
            changed=self.changed_data,
            input_rules=data.get("input_rules") or {},
        ):
            self.add_error(problem.field, problem.sentence)
        return data


@admin.register(Route)
class RouteAdmin(SyncBannerMixin, HistoryAdmin):
    form = RouteForm
    list_display = ("model_name", "split", "enabled", "updated_at", "updated_by")
    list_select_related = (
        "registered_model",
        "default_version",
        "canary_version",
        "updated_by",
    )
    search_fields = ("registered_model__name",)
    history_list_display = (
        "default_version",
        "canary_version",
        "canary_weight_percent",
        "enabled",
    )
    readonly_fields = (
        "model_name",
        "default_weight_percent",
        "updated_at",
        "updated_by",
    )
    fieldsets = (
        (None, {"fields": ("model_name", "enabled")}),
        (
            "Versions",
            {
                "fields": (
                    "default_version",
                    "default_weight_percent",
                    "canary_version",
                    "canary_weight_percent",
                )
            },
        ),
        (
            "Over the model's own metadata",
            {"fields": ("low_confidence_below", "input_rules")},
        ),
        ("Last change", {"fields": ("updated_at", "updated_by")}),
    )

    def save_model(
        self, request: HttpRequest, obj: Route, form: Any, change: bool
    ) -> None:
        changed = ", ".join(form.changed_data) or "nothing"
        routes.save(obj, by=request.user, reason=f"changed {changed} in the admin")

    @display(description="model_name", ordering="registered_model__name")
    def model_name(self, route: Route) -> str:
        return route.registered_model.name

    @display(description="traffic")
    def split(self, route: Route) -> SafeString:
        return admin_columns.split(route)
