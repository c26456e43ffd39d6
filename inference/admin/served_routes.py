"""Extend the registry's pages of routes and models with how engines serve them."""

from typing import Any

from django.contrib import admin
from django.http import HttpRequest
from django.utils.html import format_html_join
from django.utils.safestring import SafeString
from unfold.decorators import display

from inference.admin import state_labels
from inference.conditions.reading import VersionStates
from registry.admin import RegisteredModelAdmin, RouteAdmin, columns
from registry.admin.models import VersionInline
from registry.models import ModelVersion, RegisteredModel, Route


class ServedVersionInline(VersionInline):
    fields = (
        "link",
        "serving_state",
        *(name for name in VersionInline.fields if name not in ("link", "artifact")),
    )
    readonly_fields = fields

    @display(description="state")
    def serving_state(self, version: ModelVersion) -> SafeString:
        # An inline is made for each request, and all its versions are of one model.
        if not hasattr(self, "_states"):
            self._states = VersionStates([version.registered_model.name])
        return state_labels.label_and_why(version, self._states.of(version))


admin.site.unregister(RegisteredModel)


@admin.register(RegisteredModel)
class ServedModelAdmin(RegisteredModelAdmin):
    """The registry knows no engines, so their part of its pages is added here."""

    inlines = (ServedVersionInline,)


admin.site.unregister(Route)


@admin.register(Route)
class ServedRouteAdmin(RouteAdmin):
    """The registry knows no engines, so their part of its pages is added here."""

    list_display = (
        "model_name",
        "split",
        "states",
        # A route that is off says so with its shares.
        *(name for name in RouteAdmin.list_display[2:] if name != "enabled"),
    )
    readonly_fields = (*RouteAdmin.readonly_fields, "states")

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        [(title, options), *others] = super().get_fieldsets(request, obj)
        return [(title, {**options, "fields": (*options["fields"], "states")}), *others]

    def get_changelist_instance(self, request: HttpRequest) -> Any:
        changelist = super().get_changelist_instance(request)
        changelist.result_list = list(changelist.result_list)
        state_labels.with_states(
            version for route in changelist.result_list for _, version in _roles(route)
        )
        return changelist

    @display(description="states")
    def states(self, route: Route) -> SafeString:
        """Show the state of each version that the route names."""
        roles = _roles(route)
        if not all(hasattr(version, "state_report") for _, version in roles):
            state_labels.with_states(version for _, version in roles)
        return format_html_join(
            "",
            '<div class="mb-1 whitespace-nowrap">{}, {}: {}</div>',
            (
                (
                    columns.version_link(version),
                    role,
                    state_labels.label_and_why(version, version.state_report),
                )
                for role, version in roles
            ),
        )


def _roles(route: Route) -> list[tuple[str, Any]]:
    named = (
        ("default", route.default_version),
        ("canary", route.canary_version),
        ("fallback", route.fallback_version),
    )
    found: list[tuple[str, Any]] = []
    for role, version in named:
        if version is not None:
            # Already read with the route, so this asks for nothing.
            version.registered_model = route.registered_model
            found.append((role, version))
    return found
