"""Admin pages of engines: what each is, and which versions it holds."""

from typing import Any

from django.contrib import admin
from django.db.models import Count, Q, QuerySet
from django.http import HttpRequest
from django.template.defaultfilters import filesizeformat
from django.template.loader import render_to_string
from django.utils.html import format_html
from django.utils.safestring import SafeString
from unfold.admin import ModelAdmin, TabularInline
from unfold.decorators import display

from inference.admin import hosts, sparkline
from inference.admin.read_only import ReadOnly
from inference.models import Engine, LoadedVersion
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


def _state_label(row: Engine | LoadedVersion) -> SafeString:
    return columns.label(row.get_state_display(), _STATE_COLORS[row.state])


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

    @display(description="State", ordering="state")
    def state_label(self, version: LoadedVersion) -> SafeString:
        return _state_label(version)

    @display(description="Loaded in", ordering="load_ms", empty_value="–")
    def loaded_in(self, version: LoadedVersion) -> str | None:
        if version.load_ms is None:
            return None
        return f"{version.load_ms / 1000:.1f} s"

    @display(description="Memory", ordering="memory_bytes")
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
                    "process_id",
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

    @display(description="State", ordering="state")
    def state_label(self, engine: Engine) -> SafeString:
        return _state_label(engine)

    @display(description="Memory", ordering="memory_bytes")
    def memory(self, engine: Engine) -> SafeString:
        return format_html(
            '<span class="whitespace-nowrap">{}</span>',
            filesizeformat(engine.memory_bytes),
        )

    @display(description="Memory limit")
    def memory_limit(self, engine: Engine) -> str:
        if not engine.memory_limit_bytes:
            return "none"
        return f"{filesizeformat(engine.memory_limit_bytes)} beyond an empty process"

    @display(description="Memory over time")
    def memory_over_time(self, engine: Engine) -> SafeString | str:
        drawn = sparkline.draw(engine.memory_samples)
        if drawn is None:
            return "not measured yet"
        context = {"memory": drawn}
        return SafeString(render_to_string("inference/sparkline.html", context))

    @display(description="Process id", empty_value="–")
    def process_id(self, engine: Engine) -> int | None:
        return engine.pid

    @display(description="Holds", ordering="kind")
    def holds(self, engine: Engine) -> str:
        return _HOLDS[Engine.Kind(engine.kind)]

    @display(description="Where", ordering="host")
    def place(self, engine: Engine) -> SafeString:
        return format_html(
            "<div><div>{}</div><div>{}</div></div>",
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
        if engine.state != Engine.State.RUNNING:
            return "–"
        failed = f", {engine.failed_count} failed" if engine.failed_count else ""
        return f"{engine.ready_count} ready{failed}"
