"""Admin pages of model versions."""

import re
from collections.abc import Callable
from typing import Any

from django import forms
from django.contrib import admin
from django.db import models
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.safestring import SafeString
from unfold.admin import ModelAdmin
from unfold.contrib.filters.admin import AutocompleteSelectFilter, ChoicesDropdownFilter
from unfold.decorators import action, display
from unfold.enums import ActionVariant

from registry import artifacts, routes
from registry.admin import columns, dialogs, differences, rules
from registry.admin.dialogs import (
    NewTrafficForm,
    RouteChangeForm,
    StopCanaryForm,
    dialog,
)
from registry.admin.differences import GatedForm, StartCanaryForm
from registry.admin.lookup import get_or_404
from registry.admin.sync import SyncBannerMixin
from registry.models import ModelVersion, Route

CHANGE_ROUTE = ["move_route"]
_NUMBERED = re.compile(r"(.*?)\s*\bv(\d{1,9})")


class VersionColumns:
    """Columns that every list of versions shows."""

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False  # versions are registered in MLflow

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False  # a version never changes; people use actions instead

    def get_queryset(self, request: HttpRequest) -> models.QuerySet[ModelVersion]:
        versions: models.QuerySet[ModelVersion] = super().get_queryset(request)  # type: ignore[misc]
        found = versions.select_related("registered_model__route")
        return found.prefetch_related("aliases")

    @display(description="role")
    def roles(self, version: ModelVersion) -> SafeString:
        return columns.roles(version)

    @display(description="aliases")
    def aliases(self, version: ModelVersion) -> SafeString:
        return columns.aliases(version)

    @display(description="metrics")
    def metrics_text(self, version: ModelVersion) -> SafeString:
        return columns.metrics(version)

    @display(description="artifact")
    def artifact(self, version: ModelVersion) -> SafeString:
        return columns.artifact(version)

    @display(description="problems")
    def problems(self, version: ModelVersion) -> SafeString:
        return columns.problems(version)


@admin.register(ModelVersion)
class ModelVersionAdmin(VersionColumns, SyncBannerMixin, ModelAdmin):  # type: ignore[misc]  # unfold is untyped
    list_display: tuple[str, ...] = (
        "title",
        "roles",
        "aliases",
        "metrics_text",
        "artifact",
        "first_problem",
        "registered_at",
    )
    list_display_links = ("title",)
    list_filter = (
        ("registered_model", AutocompleteSelectFilter),
        ("artifact_state", ChoicesDropdownFilter),
        "published",
    )
    list_filter_submit = True
    search_fields = ("registered_model__name", "description", "run_id")
    date_hierarchy = None
    ordering = ("-registered_at", "-pk")
    list_per_page = 50
    _row_actions = (
        "make_default",
        "start_canary",
        "stop_canary",
        "publish",
        "withdraw",
        "fetch_artifact",
    )
    actions_row: tuple[str, ...] = _row_actions
    actions_detail: tuple[Any, ...] = (
        *_row_actions[:2],
        {"title": "More", "items": list(_row_actions[2:])},
    )
    fieldsets = (
        (
            None,
            {
                "fields": (
                    "title",
                    "roles",
                    "aliases",
                    "description",
                    "problems",
                    "all_metrics",
                )
            },
        ),
        (
            "Served as",
            {"fields": ("inputs", "differences", "published")},
        ),
        (
            "As it was logged",
            {
                "classes": ("collapse",),
                "fields": ("signature", "metadata", "input_example"),
            },
        ),
        (
            "Artifact",
            {"fields": ("artifact", "artifact_digest", "flavors", "source")},
        ),
        (
            "In MLflow",
            {
                "fields": (
                    "mlflow_run",
                    "status",
                    "registered_at",
                    "tags",
                    "missing_since",
                )
            },
        ),
    )

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def get_search_results(
        self, request: HttpRequest, queryset: Any, search_term: str
    ) -> tuple[Any, bool]:
        """Find a version also as pages name it: a model's name and "v3"."""
        numbered = _NUMBERED.fullmatch(search_term.strip())
        if numbered is not None:
            queryset = queryset.filter(version=int(numbered[2]))
            search_term = numbered[1]
        found: tuple[Any, bool] = super().get_search_results(
            request, queryset, search_term
        )
        return found

    @display(description="version", ordering="registered_model__name")
    def title(self, version: ModelVersion) -> str:
        return str(version)

    @display(description="MLflow run")
    def mlflow_run(self, version: ModelVersion) -> str:
        return version.run_id

    @display(description="MLflow status")
    def status(self, version: ModelVersion) -> str:
        return version.mlflow_status

    @display(description="metrics")
    def all_metrics(self, version: ModelVersion) -> SafeString:
        return columns.metrics(version, shown=len(version.metrics))

    @display(description="inputs")
    def inputs(self, version: ModelVersion) -> SafeString:
        return rules.own_rules(version)

    @display(description="differences to the route")
    def differences(self, version: ModelVersion) -> SafeString:
        return differences.told(version)

    @display(description="problems")
    def first_problem(self, version: ModelVersion) -> SafeString:
        return columns.first_problem(version)

    @action(
        description="Make default",
        icon="star",
        permissions=CHANGE_ROUTE,
        dialog=dialog(
            "Make this version the default?",
            submit="Make default",
            form=GatedForm,
        ),
        variant=ActionVariant.PRIMARY,
    )
    def make_default(
        self, request: HttpRequest, form: GatedForm, object_id: str
    ) -> HttpResponse:
        return self._do(
            request,
            object_id,
            lambda version: routes.make_default(
                version, by=request.user, override=form.override, why=form.reason
            ),
            "{} is the default now. Requests move once the engines have it loaded.",
        )

    @action(
        description="Start canary",
        icon="science",
        permissions=CHANGE_ROUTE,
        dialog=dialog(
            "Start a canary with this version",
            submit="Start canary",
            form=StartCanaryForm,
        ),
    )
    def start_canary(
        self, request: HttpRequest, form: StartCanaryForm, object_id: str
    ) -> HttpResponse:
        weight = form.cleaned_data["weight_percent"]
        return self._do(
            request,
            object_id,
            lambda version: routes.start_canary(
                version,
                weight_percent=weight,
                by=request.user,
                override=form.override,
                why=form.reason,
            ),
            f"{{}} is a canary now, with {weight} % of the requests once the "
            "engines have it loaded.",
        )

    @action(
        description="Stop canary",
        icon="stop_circle",
        permissions=CHANGE_ROUTE,
        dialog=dialog(
            "Send its calls to the default again?",
            submit="Stop canary",
            form=StopCanaryForm,
        ),
    )
    def stop_canary(
        self, request: HttpRequest, form: StopCanaryForm, object_id: str
    ) -> HttpResponse:
        return self._do(
            request,
            object_id,
            lambda version: routes.stop_canary(
                _route_of(version), by=request.user, seen=version.pk, why=form.reason
            ),
            "{} is no canary any more; the default gets its calls.",
        )

    @action(
        description="Publish",
        icon="public",
        permissions=CHANGE_ROUTE,
        dialog=dialog(
            "Let callers name this version?", submit="Publish", form=NewTrafficForm
        ),
    )
    def publish(
        self, request: HttpRequest, form: NewTrafficForm, object_id: str
    ) -> HttpResponse:
        return self._do(
            request,
            object_id,
            lambda version: routes.publish(version, by=request.user),
            "{} can be called by its number once the engines have it loaded.",
        )

    @action(
        description="Withdraw",
        icon="public_off",
        permissions=CHANGE_ROUTE,
        dialog=dialog(
            "Stop callers from naming this version?",
            submit="Withdraw",
            form=RouteChangeForm,
        ),
    )
    def withdraw(
        self, request: HttpRequest, form: RouteChangeForm, object_id: str
    ) -> HttpResponse:
        return self._do(
            request,
            object_id,
            lambda version: routes.withdraw(version, by=request.user),
            "{} is callable only while a route names it.",
        )

    @action(
        description="Fetch artifact",
        icon="download",
        permissions=["fetch"],
        dialog=dialog("Fetch the artifact of this version?", submit="Fetch artifact"),
    )
    def fetch_artifact(
        self, request: HttpRequest, form: forms.Form, object_id: str
    ) -> HttpResponse:
        return self._do(
            request,
            object_id,
            artifacts.ask_for,
            "A worker was asked to fetch {}; its state shows how it went.",
        )

    def _do(
        self,
        request: HttpRequest,
        object_id: str,
        change: Callable[[ModelVersion], Any],
        done: str,
    ) -> HttpResponse:
        """Change the version, show the outcome and go back to the previous page."""
        version = get_or_404(self, request, object_id)

        def change_and_note() -> None:
            change(version)
            # Versions have no history of their own, so the admin's log keeps this.
            self.log_change(request, version, done.format(version))

        return dialogs.answer(
            request,
            change_and_note,
            done=done.format(version),
            otherwise=reverse("admin:registry_modelversion_changelist"),
        )


def _route_of(version: ModelVersion) -> Route:
    route = Route.objects.filter(registered_model=version.registered_model).first()
    if route is None:
        raise routes.RouteError(f"{version.registered_model.name} has no route.")
    return route
