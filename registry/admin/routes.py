"""Admin pages of routes."""

from collections.abc import Callable
from functools import partial
from typing import Any

from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.safestring import SafeString
from unfold.decorators import action, display
from unfold.enums import ActionVariant

from registry import routes, schema_gate
from registry.admin import columns, rules
from registry.admin.dialogs import CanaryForm, answer, dialog
from registry.admin.differences import PromoteCanaryForm
from registry.admin.lookup import get_or_404
from registry.admin.route_form import RouteForm
from registry.admin.route_traffic import TrafficHistoryAdmin
from registry.admin.sync import SyncBannerMixin
from registry.models import Route
from registry.shares import canaries

_OVERRIDE = ("override_reason",)


@admin.register(Route)
class RouteAdmin(SyncBannerMixin, TrafficHistoryAdmin):
    form = RouteForm
    list_display: tuple[str, ...] = (
        "model_name",
        "split",
        "enabled",
        "first_problem",
        "updated_at",
        "updated_by",
    )
    list_select_related = (
        "registered_model",
        *Route.VERSIONS,
        "updated_by",
        "alias_state",
    )
    search_fields = ("registered_model__name",)
    ordering = ("-updated_at", "-pk")
    list_per_page = 50
    history_list_display = ("traffic",)
    actions_detail = ("promote_canary", "stop_canary")
    change_form_outer_before_template = "registry/route_observed.html"
    readonly_fields: tuple[str, ...] = (
        "model_name",
        "problems",
        "default_weight_percent",
        "model_rules",
        "alias_place",
        "updated_at",
        "updated_by_name",
    )
    fieldsets = (
        (None, {"fields": ("model_name", "enabled", "problems")}),
        (
            "Versions",
            {
                "fields": (
                    "default_version",
                    "default_weight_percent",
                    "canary_version",
                    "canary_weight_percent",
                    *_OVERRIDE,
                    "sticky",
                    "rollout_plan",
                )
            },
        ),
        (
            "Further canaries",
            {
                "classes": ("collapse",),
                "fields": tuple(
                    zip(canaries.VERSIONS[1:], canaries.WEIGHTS[1:], strict=True)
                ),
            },
        ),
        (
            "Shadow",
            {
                "fields": (
                    "shadow_version",
                    "shadow_percent",
                    "shadow_tolerance_percent",
                    "keeps_examples",
                )
            },
        ),
        (
            "Alias in MLflow",
            {"fields": ("alias", "alias_follows", "alias_starts", "alias_place")},
        ),
        (
            "Instead of what the model's metadata says",
            {
                "fields": (
                    "low_confidence_below",
                    "model_rules",
                    "input_rules",
                    "batching",
                    "replicas",
                )
            },
        ),
        ("Cache", {"fields": ("cache_ttl_s", "cache_scope")}),
        (
            "When the version in charge cannot answer",
            {"fields": ("fallback_version", "fallback_answer", "fallback_on")},
        ),
        ("Last change", {"fields": ("updated_at", "updated_by_name", "as_of")}),
    )

    def save_model(
        self, request: HttpRequest, obj: Route, form: Any, change: bool
    ) -> None:
        changed = ", ".join(form.changed_data) or "nothing"
        reason = f"changed {changed} in the admin{form.override_note}"
        routes.save(obj, by=request.user, reason=reason)

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        """Ask for the reason of an override only where it is allowed."""
        fieldsets = super().get_fieldsets(request, obj)
        if schema_gate.may_override(request.user):
            return fieldsets
        return [
            (title, {**rest, "fields": [it for it in fields if it not in _OVERRIDE]})
            for title, rest in fieldsets
            for fields in [rest["fields"]]
        ]

    def get_form(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        # Made for each request.
        form = super().get_form(request, *args, **kwargs)
        form.person = request.user
        return form

    @display(description="model", ordering="registered_model__name")
    def model_name(self, route: Route) -> str:
        return route.registered_model.name

    @display(description="updated by", empty_value="–")
    def updated_by_name(self, route: Route) -> str | None:
        """The user's name without a link: only operators may open users."""
        return None if route.updated_by is None else str(route.updated_by)

    @display(description="traffic")
    def split(self, route: Route) -> SafeString:
        return columns.split(route)

    @display(description="problems")
    def problems(self, route: Route) -> SafeString:
        return columns.problems(route)

    @display(description="problems")
    def first_problem(self, route: Route) -> SafeString:
        return columns.first_problem(route)

    @display(description="model's own rules")
    def model_rules(self, route: Route) -> SafeString:
        return rules.own_rules(route.default_version)

    @display(description="where it stands", empty_value="–")
    def alias_place(self, route: Route) -> SafeString | None:
        return columns.alias_place(route)

    def traffic(self, record: Any) -> str:
        """Describe how a historical record divided the traffic."""
        return columns.split_text(record)

    @action(
        description="Promote canary",
        icon="star",
        permissions=["move_route"],
        variant=ActionVariant.PRIMARY,
        dialog=dialog(
            "Make the canary the default?",
            submit="Promote canary",
            form=PromoteCanaryForm,
        ),
    )
    def promote_canary(
        self, request: HttpRequest, form: PromoteCanaryForm, object_id: str
    ) -> HttpResponse:
        done = "The canary is the default now."
        promote = partial(routes.promote_canary, override=form.override)
        return self._do(request, form, object_id, promote, done)

    @action(
        description="Stop canary",
        icon="stop_circle",
        permissions=["move_route"],
        dialog=dialog(
            "Send the canary's calls to the default again?",
            submit="Stop canary",
            form=CanaryForm,
        ),
    )
    def stop_canary(
        self, request: HttpRequest, form: CanaryForm, object_id: str
    ) -> HttpResponse:
        done = "The canary was stopped; the default gets its calls."
        return self._do(request, form, object_id, routes.stop_canary, done)

    def get_actions_detail(self, request: HttpRequest, object_id: Any) -> list[Any]:
        """Offer the actions on a canary only if the route has one.

        Of several, each is promoted from its own page, which says what callers notice.
        """
        route = self.get_object(request, object_id)
        number = 0 if route is None else len(route.canaries)
        actions: list[Any] = super().get_actions_detail(request, object_id)
        offered = {"promote_canary", "stop_canary"} if number == 1 else {"stop_canary"}
        return [
            each
            for each in actions
            if number and each.method.original_function_name in offered
        ]

    def _do(
        self,
        request: HttpRequest,
        form: CanaryForm,
        object_id: str,
        change: Callable[..., Route],
        done: str,
    ) -> HttpResponse:
        route = get_or_404(self, request, object_id)
        return answer(
            request,
            lambda: change(
                route,
                by=request.user,
                seen=form.cleaned_data["canary"],
                why=form.reason,
            ),
            done=done,
            otherwise=reverse("admin:registry_route_change", args=[route.pk]),
        )
