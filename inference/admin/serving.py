"""Admin pages of engines, loaded versions, serving routes and the snapshot.

They follow from settings in the registry, so they cannot be edited.
"""

from typing import Any

from django.conf import settings
from django.contrib import admin
from django.db.models import Count, Q, QuerySet
from django.http import HttpRequest
from django.template.defaultfilters import filesizeformat
from django.template.loader import render_to_string
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from unfold.admin import ModelAdmin, TabularInline
from unfold.decorators import display

from inference.admin import hosts, sparkline
from inference.admin.read_only import ReadOnly
from inference.controller import callable_versions
from inference.models import Engine, LoadedVersion, ServingRoute, SnapshotState
from registry.admin import columns

_STATE_COLORS = {
    Engine.State.RUNNING.value: "success",
    Engine.State.UNREACHABLE.value: "danger",
    LoadedVersion.State.READY.value: "success",
    LoadedVersion.State.LOADING.value: "info",
    LoadedVersion.State.FAILED.value: "danger",
    LoadedVersion.State.EVICTED.value: "warning",
}
_HOLDS = {
    Engine.Kind.DEVICE: "torch",
    Engine.Kind.OWN: "one version",
    Engine.Kind.GROUP: "a group",
}
_SHOWN_OF_DIGEST = 12


class _Error:
    """Show an error in one line, with its trace one click away."""

    @display(description="Error", empty_value="–")
    def error_text(self, row: Engine | LoadedVersion) -> SafeString | None:
        return columns.folded(row.error) if row.error else None


class LoadedVersionInline(_Error, ReadOnly, TabularInline):  # type: ignore[misc]
    model = LoadedVersion
    fields = (
        "model",
        "version",
        "state_label",
        "memory",
        "loaded_in",
        "notes",
        "error_text",
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
class EngineAdmin(_Error, ReadOnly, ModelAdmin):  # type: ignore[misc]
    list_display = (
        "name",
        "state_label",
        "holds",
        "place",
        "walls_in_short",
        "memory",
        "versions",
        "error_text",
        "seen_at",
    )
    fieldsets = (
        (None, {"fields": ("name", "state_label", "kind", "error_text", "seen_at")}),
        (
            "Where it runs",
            {
                "fields": (
                    "host",
                    "device",
                    "device_title",
                    "device_memory",
                    "environment",
                    "address",
                    "pid",
                    "started_at",
                )
            },
        ),
        ("Memory", {"fields": ("memory", "memory_limit", "memory_over_time")}),
        ("Walls", {"fields": ("walls_shown",)}),
    )
    readonly_fields = tuple(
        name for _, options in fieldsets for name in options["fields"]
    )
    search_fields = ("name", "device", "host")
    list_filter = ("state", "kind", "host")
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
    def memory(self, engine: Engine) -> SafeString:
        return format_html(
            '<span class="whitespace-nowrap">{}</span>',
            filesizeformat(engine.memory_bytes),
        )

    @display(description="Memory limit", empty_value="none")
    def memory_limit(self, engine: Engine) -> str | None:
        if not engine.memory_limit_bytes:
            return None
        return f"{filesizeformat(engine.memory_limit_bytes)} beyond an empty process"

    @display(description="Memory over time", empty_value="not measured yet")
    def memory_over_time(self, engine: Engine) -> SafeString | None:
        drawn = sparkline.draw(engine.memory_samples)
        if drawn is None:
            return None
        context = {"memory": drawn}
        return SafeString(render_to_string("inference/sparkline.html", context))

    @display(description="Holds", ordering="kind")
    def holds(self, engine: Engine) -> str:
        return _HOLDS[Engine.Kind(engine.kind)]

    @display(description="Where", ordering="host")
    def place(self, engine: Engine) -> SafeString:
        return format_html(
            '<span class="whitespace-nowrap">{}</span><br>{}',
            ", ".join(filter(None, (engine.host, engine.device))) or "–",
            engine.environment[:_SHOWN_OF_DIGEST],
        )

    @display(description="Walls", empty_value="–")
    def walls_in_short(self, engine: Engine) -> SafeString | None:
        if engine.kind == Engine.Kind.DEVICE and not engine.walls:
            return None
        return hosts.walls_in_short(engine.walls)

    @display(description="Walls")
    def walls_shown(self, engine: Engine) -> SafeString:
        if engine.kind == Engine.Kind.DEVICE and not engine.walls:
            return SafeString("None: the engine of a device runs torch programs.")
        return hosts.walls(engine.walls)

    @display(description="Device memory", ordering="device_used_bytes")
    def device_memory(self, engine: Engine) -> str:
        if not engine.device_total_bytes:
            return "not open yet"
        used = filesizeformat(engine.device_used_bytes)
        return f"{used} of {filesizeformat(engine.device_total_bytes)} in use"

    @display(description="Versions", ordering="failed_count")
    def versions(self, engine: Any) -> str:
        failed = f", {engine.failed_count} failed" if engine.failed_count else ""
        return f"{engine.ready_count} ready{failed}"


@admin.register(LoadedVersion)
class LoadedVersionAdmin(_Error, ReadOnly, ModelAdmin):  # type: ignore[misc]
    list_display = (
        "model",
        "version",
        "engine",
        "state_label",
        "memory",
        "error_text",
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
        "apart",
        "error_text",
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
        "waits",
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
        "former_version",
        "waits",
        "moved_at",
    )
    readonly_fields = fields
    list_before_template = "inference/serving_routes_note.html"

    @display(description="Default", ordering="default_version")
    def default(self, route: ServingRoute) -> str:
        if route.default_version is None:
            return "nothing yet"
        return f"v{route.default_version}, {route.default_weight_percent} %"

    @display(description="Waiting for", empty_value="–")
    def waits(self, route: ServingRoute) -> SafeString | None:
        return columns.folded(route.waiting_for) if route.waiting_for else None

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
