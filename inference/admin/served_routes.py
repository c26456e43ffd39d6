"""Extend the registry's pages of routes and models with how engines serve them."""

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from django.contrib import admin
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from unfold.decorators import display

from inference.admin import state_labels
from inference.admin.following.buttons import AskForTrust, FollowModel, may_ask
from inference.conditions.reading import VersionStates
from inference.following import followers, trust
from inference.models import LoadedVersion, ServingRoute, SnapshotState
from registry.admin import RegisteredModelAdmin, RouteAdmin, columns
from registry.admin.models import VersionInline
from registry.models import ModelVersion, RegisteredModel, Route
from registry.routes import in_words

_LINK = '<a class="text-primary-600 dark:text-primary-500" href="{}">{}</a>'
_SERVED_NOW = ("served", "loaded_on", "last_published")


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
class ServedModelAdmin(FollowModel, AskForTrust, RegisteredModelAdmin):
    """The registry knows no engines, so their part of its pages is added here."""

    inlines = (ServedVersionInline,)
    actions_detail = (
        *("follow", "unfollow", "ask_for_trust"),
        *RegisteredModelAdmin.actions_detail,
    )
    readonly_fields = (*RegisteredModelAdmin.readonly_fields, "asked_for_trust")

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        fieldsets = super().get_fieldsets(request, obj)
        if obj is None or trust.request_of(obj) is None:
            return fieldsets
        return [*fieldsets, ("Trust", {"fields": ("asked_for_trust",)})]

    def get_actions_detail(self, request: HttpRequest, object_id: Any) -> list[Any]:
        """Offer what changes something."""
        actions: list[Any] = super().get_actions_detail(request, object_id)
        model = self.get_object(request, object_id)
        if model is None:
            return actions
        user: Any = request.user
        following = followers.is_following(model, user)
        hidden = {"follow" if following else "unfollow"}
        if not may_ask(model, user):
            hidden.add("ask_for_trust")
        return [it for it in actions if it.method.original_function_name not in hidden]

    @display(description="asked for", empty_value="–")
    def asked_for_trust(self, model: RegisteredModel) -> str | None:
        request = trust.request_of(model)
        return None if request is None else str(request)


admin.site.unregister(Route)


@admin.register(Route)
class ServedRouteAdmin(RouteAdmin):
    """The registry knows no engines, so their part of its pages is added here."""

    list_display = (
        "model_name",
        "split",
        "served",
        "states",
        # A route that is off says so with its shares.
        *(name for name in RouteAdmin.list_display[2:] if name != "enabled"),
    )
    readonly_fields = (*RouteAdmin.readonly_fields, "states", *_SERVED_NOW)

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        [(title, options), *others] = super().get_fieldsets(request, obj)
        first = (title, {**options, "fields": (*options["fields"], "states")})
        return [first, ("Served now", {"fields": _SERVED_NOW}), *others]

    def get_changelist_instance(self, request: HttpRequest) -> Any:
        changelist = super().get_changelist_instance(request)
        changelist.result_list = list(changelist.result_list)
        state_labels.with_states(
            version for route in changelist.result_list for _, version in _roles(route)
        )
        _with_serving(changelist.result_list)
        return changelist

    @display(description="served now")
    def served(self, route: Any) -> SafeString:
        """Show what gateways use, and what keeps them from what people want."""
        if not hasattr(route, "serving"):
            _with_serving([route])
        serving = route.serving
        if serving is None or serving.default_version is None:
            parts = [columns.label("nothing yet", "warning")]
        elif _is_as_wanted(serving, route):
            parts = [columns.label("as wanted", "success")]
        else:
            parts = [format_html("{}", _split_text(serving))]
        if serving is not None and serving.default_version is not None:
            parts.append(format_html("since {}", _moment(serving.moved_at)))
        if serving is not None and serving.waiting_for:
            parts.append(format_html("Waits: {}", columns.folded(serving.waiting_for)))
        lines = format_html_join("", "<div>{}</div>", ((part,) for part in parts))
        return format_html('<div style="overflow-wrap: anywhere">{}</div>', lines)

    @display(description="loaded on", empty_value="no engine")
    def loaded_on(self, route: Route) -> SafeString | None:
        """List the engines that hold a version of the route, by version."""
        versions = [version.version for _, version in _roles(route)]
        loaded = LoadedVersion.objects.filter(
            model=route.registered_model.name, version__in=versions
        ).select_related("engine")
        lines = (
            (
                each.version,
                reverse("admin:inference_engine_change", args=[each.engine_id]),
                each.engine.name,
                each.get_state_display(),
            )
            for each in loaded.order_by("-version", "engine__name")
        )
        line = format_html("<div>v{{}} on {}: {{}}</div>", SafeString(_LINK))
        return format_html_join("", line, lines) or None

    @display(description="last published")
    def last_published(self, route: Route) -> str:
        """Say when gateways were last told of a change of any route or key."""
        state = SnapshotState.objects.filter(pk=1).first()
        if state is None or state.published_at is None:
            return "never"
        waiting = state.changed - state.published
        rest = "nothing waits" if waiting <= 0 else f"{waiting} changes wait"
        return f"{_moment(state.published_at)}; {rest}"

    @display(description="states")
    def states(self, route: Route) -> SafeString:
        """Show the state of each version that the route names."""
        roles = _roles(route)
        if not all(hasattr(version, "state_report") for _, version in roles):
            state_labels.with_states(version for _, version in roles)
        lines = format_html_join(
            "",
            '<div class="mb-1">{}, {}: {}</div>',
            (
                (
                    columns.version_link(version),
                    role,
                    state_labels.label_and_why(version, version.state_report),
                )
                for role, version in roles
            ),
        )
        # One element: on phones, a cell puts its parts side by side.
        return format_html("<div>{}</div>", lines)


def _roles(route: Route) -> list[tuple[str, Any]]:
    named = (
        ("default", route.default_version),
        *(("canary", canary.version) for canary in route.canaries),
        ("fallback", route.fallback_version),
        ("shadow", route.shadow_version),
    )
    found: list[tuple[str, Any]] = []
    for role, version in named:
        if version is not None:
            # Already read with the route, so this asks for nothing.
            version.registered_model = route.registered_model
            found.append((role, version))
    return found


def _with_serving(routes: Iterable[Any]) -> None:
    """Read what gateways use of these routes at once, and keep it on the rows."""
    by_model = {route.registered_model.name: route for route in routes}
    found = ServingRoute.objects.filter(model__in=by_model)
    serving = {row.model: row for row in found}
    for name, route in by_model.items():
        route.serving = serving.get(name)


def _is_as_wanted(serving: ServingRoute, route: Route) -> bool:
    wanted = {it.version.version: it.weight_percent for it in route.canaries}
    return (
        serving.default_version == route.default_version.version
        and dict(serving.canaries) == wanted
    )


def _split_text(serving: ServingRoute) -> str:
    return in_words(serving.default_version, serving.canaries, enabled=True)


def _moment(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S} UTC"
