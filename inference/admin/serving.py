"""Admin pages of engines, loaded versions, serving routes and the snapshot.

They follow from settings in the registry, so they cannot be edited.
"""

from typing import Any

from django.conf import settings
from django.contrib import admin
from django.db.models import Count, Q, QuerySet
from django.http import HttpRequest
from django.template.defaultfilters import filesizeformat
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from unfold.admin import ModelAdmin, TabularInline
from unfold.decorators import display

from inference.controller import callable_versions
from inference.models import Engine, LoadedVersion, ServingRoute, SnapshotState

_STATE_COLORS = {
    Engine.State.RUNNING.value: "success",
    Engine.State.UNREACHABLE.value: "danger",
    LoadedVersion.State.READY.value: "success",
    LoadedVersion.State.LOADING.value: "info",
    LoadedVersion.State.FAILED.value: "danger",
    LoadedVersion.State.EVICTED.value: "warning",
}


class ReadOnly:
    """Let nobody add, change or delete rows."""

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


class LoadedVersionInline(ReadOnly, TabularInline):  # type: ignore[misc]
    model = LoadedVersion
    fields = (
        "model",
        "version",
        "state_label",
        "memory",
        "loaded_in",
        "notes",
        "error",
        "updated_at",
    )
    readonly_fields = fields
    extra = 0
    per_page = 20
    hide_title = True
    verbose_name_plural = "Versions on this engine"

    @display(description="State", label=_STATE_COLORS)
    def state_label(self, version: LoadedVersion) -> str:
        return version.state

    @display(description="Loaded in", empty_value="–")
    def loaded_in(self, version: LoadedVersion) -> str | None:
        if version.load_ms is None:
            return None
        return f"{version.load_ms / 1000:.1f} s"

    @display(description="Memory")
    def memory(self, version: LoadedVersion) -> str:
        return str(filesizeformat(version.memory_bytes))


@admin.register(Engine)
class EngineAdmin(ReadOnly, ModelAdmin):  # type: ignore[misc]
    list_display = (
        "name",
        "state_label",
        "device",
        "memory",
        "device_memory",
        "ready_versions",
        "failed_versions",
        "error",
        "seen_at",
    )
    fields = (
        "name",
        "state_label",
        "device",
        "device_title",
        "device_memory",
        "address",
        "pid",
        "memory",
        "error",
        "seen_at",
    )
    readonly_fields = fields
    search_fields = ("name", "device")
    list_filter = ("state",)
    inlines = (LoadedVersionInline,)
    list_before_template = "inference/engines_note.html"

    def get_queryset(self, request: HttpRequest) -> QuerySet[Engine]:
        versions = super().get_queryset(request)
        ready, failed = LoadedVersion.State.READY, LoadedVersion.State.FAILED
        return versions.annotate(  # type: ignore[no-any-return]
            ready_count=Count(
                "loaded_versions", filter=Q(loaded_versions__state=ready)
            ),
            failed_count=Count(
                "loaded_versions", filter=Q(loaded_versions__state=failed)
            ),
        )

    @display(description="State", ordering="state", label=_STATE_COLORS)
    def state_label(self, engine: Engine) -> str:
        return engine.state

    @display(description="Memory", ordering="memory_bytes")
    def memory(self, engine: Engine) -> str:
        return str(filesizeformat(engine.memory_bytes))

    @display(description="Device memory", ordering="device_used_bytes")
    def device_memory(self, engine: Engine) -> str:
        if not engine.device_total_bytes:
            return "not open yet"
        used = filesizeformat(engine.device_used_bytes)
        return f"{used} of {filesizeformat(engine.device_total_bytes)} in use"

    @display(description="Ready", ordering="ready_count")
    def ready_versions(self, engine: Any) -> int:
        return int(engine.ready_count)

    @display(description="Failed", ordering="failed_count")
    def failed_versions(self, engine: Any) -> int:
        return int(engine.failed_count)


@admin.register(LoadedVersion)
class LoadedVersionAdmin(ReadOnly, ModelAdmin):  # type: ignore[misc]
    list_display = (
        "model",
        "version",
        "engine",
        "state_label",
        "memory",
        "error",
        "load_ms",
        "updated_at",
    )
    list_select_related = ("engine",)
    list_filter = ("state", "engine")
    search_fields = ("model",)
    ordering = ("-updated_at", "-pk")
    list_per_page = 50
    fields = (
        "engine",
        "model",
        "version",
        "state",
        "memory",
        "notes",
        "error",
        "load_ms",
        "updated_at",
    )
    readonly_fields = fields
    list_before_template = "inference/loaded_versions_note.html"

    @display(description="State", ordering="state", label=_STATE_COLORS)
    def state_label(self, version: LoadedVersion) -> str:
        return version.state

    @display(description="Memory", ordering="memory_bytes")
    def memory(self, version: LoadedVersion) -> str:
        return str(filesizeformat(version.memory_bytes))


@admin.register(ServingRoute)
class ServingRouteAdmin(ReadOnly, ModelAdmin):  # type: ignore[misc]
    list_display = (
        "model",
        "default",
        "canary",
        "waiting_for",
        "moved_at",
    )
    search_fields = ("model",)
    ordering = ("-moved_at", "-pk")
    list_per_page = 50
    fields = (
        "model",
        "default_version",
        "default_weight_percent",
        "canary_version",
        "canary_weight_percent",
        "waiting_for",
        "moved_at",
    )
    readonly_fields = fields
    list_before_template = "inference/serving_routes_note.html"

    @display(description="Default", ordering="default_version")
    def default(self, route: ServingRoute) -> str:
        if route.default_version is None:
            return "nothing yet"
        return f"v{route.default_version}, {route.default_weight_percent} %"

    @display(description="Canary", ordering="canary_version", empty_value="none")
    def canary(self, route: ServingRoute) -> str | None:
        if route.canary_version is None:
            return None
        return f"v{route.canary_version}, {route.canary_weight_percent} %"


@admin.register(SnapshotState)
class SnapshotStateAdmin(ReadOnly, ModelAdmin):  # type: ignore[misc]
    list_display = ("__str__", "is_current", "published_at")
    fields = ("changed", "published", "published_at", "left_out")
    readonly_fields = fields
    list_before_template = "inference/snapshot_note.html"

    @display(description="Up to date", boolean=True)
    def is_current(self, state: SnapshotState) -> bool:
        return state.published >= state.changed

    @display(description="Versions left out")
    def left_out(self, state: SnapshotState) -> SafeString | str:
        """List the versions that should be callable but are not, with the reasons."""
        # Cached: a page asks several times, and each answer reads every version.
        found: SafeString | str | None = getattr(state, "_left_out", None)
        if found is None:
            reasons = callable_versions.reasons(artifacts=settings.HOME.artifacts)
            lines = format_html_join("", "<li>{}: {}</li>", reasons)
            found = format_html("<ul>{}</ul>", lines) if reasons else "none"
            state._left_out = found  # type: ignore[attr-defined]
        return found
