"""Routes in the admin: which versions answer, and in which shares."""

from collections.abc import Callable
from typing import Any

from django import forms
from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.safestring import SafeString
from unfold.decorators import action, display
from unfold.enums import ActionVariant
from unfold.widgets import UnfoldAdminIntegerFieldWidget

from registry import admin_columns, routes
from registry.admin_dialogs import answer, dialog
from registry.admin_history import HistoryAdmin
from registry.admin_lookup import get_or_404
from registry.admin_sync import SyncBannerMixin
from registry.models import ModelVersion, Route


class RouteForm(forms.ModelForm):  # type: ignore[type-arg]  # not generic at run time
    """Edit the canary's weight; the default gets the rest."""

    canary_weight_percent = forms.IntegerField(
        min_value=0,
        max_value=100,
        help_text="The default version gets the rest.",
        widget=UnfoldAdminIntegerFieldWidget,
    )

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
            self.instance.default_weight_percent = 100 - weight
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
    history_list_display = ("traffic",)
    actions_detail = ("promote_canary", "stop_canary")
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

    @display(description="model", ordering="registered_model__name")
    def model_name(self, route: Route) -> str:
        return route.registered_model.name

    @display(description="traffic")
    def split(self, route: Route) -> SafeString:
        return admin_columns.split(route)

    def traffic(self, record: Any) -> str:
        """Say how a historical record divided the traffic."""
        return admin_columns.split_text(record)

    @action(
        description="Promote canary",
        icon="star",
        permissions=["move_route"],
        variant=ActionVariant.PRIMARY,
        dialog=dialog("Make the canary the default?", submit="Promote canary"),
    )
    def promote_canary(
        self, request: HttpRequest, form: forms.Form, object_id: str
    ) -> HttpResponse:
        done = "The canary is the default now."
        return self._do(request, object_id, routes.promote_canary, done)

    @action(
        description="Stop canary",
        icon="stop_circle",
        permissions=["move_route"],
        dialog=dialog("Give everything to the default again?", submit="Stop canary"),
    )
    def stop_canary(
        self, request: HttpRequest, form: forms.Form, object_id: str
    ) -> HttpResponse:
        done = "The canary was stopped; the default gets everything."
        return self._do(request, object_id, routes.stop_canary, done)

    def _do(
        self,
        request: HttpRequest,
        object_id: str,
        change: Callable[..., Route],
        done: str,
    ) -> HttpResponse:
        route = get_or_404(self, request, object_id)
        return answer(
            request,
            lambda: change(route, by=request.user),
            done=done,
            otherwise=reverse("admin:registry_route_change", args=[route.pk]),
        )
