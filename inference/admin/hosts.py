"""Admin pages of hosts, and of what holds the processes there."""

from collections.abc import Mapping

from django.contrib import admin
from django.template.defaultfilters import filesizeformat
from django.template.loader import render_to_string
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html, format_html_join
from django.utils.http import urlencode
from django.utils.safestring import SafeString
from unfold.admin import ModelAdmin
from unfold.decorators import display

from inference.admin.read_only import ReadOnly
from inference.conditions import hosts
from inference.models import Engine, Host
from registry.admin import columns


def walls(of: Mapping[str, str]) -> SafeString:
    """Render what holds processes, and what it means where something does not."""
    found = hosts.walls_of(of)
    context = {"walls": found, "gaps": any(wall.gap for wall in found)}
    return SafeString(render_to_string("inference/walls.html", context))


def walls_in_short(of: Mapping[str, str]) -> SafeString:
    found = hosts.walls_of(of)
    if not found:
        return columns.label("not reported")
    gaps = sum(wall.gap for wall in found)
    if not gaps:
        return columns.label("all hold", "success")
    return columns.label(f"{gaps} of {len(found)} open", "warning")


@admin.register(Host)
class HostAdmin(ReadOnly, ModelAdmin):  # type: ignore[misc]  # unfold is untyped
    list_display = (
        "name",
        "state",
        "device_names",
        "memory",
        "walls_in_short",
        "lacking_count",
        "problem",
        "seen_at",
    )
    fields = (
        "name",
        "state",
        "device_names",
        "memory",
        "walls_shown",
        "lacking_shown",
        "processes",
        "problem",
        "seen_at",
    )
    readonly_fields = fields
    search_fields = ("name",)
    list_before_template = "inference/hosts_note.html"

    @display(description="State")
    def state(self, host: Host) -> SafeString:
        if hosts.is_away(host.seen_at, now=timezone.now()):
            return columns.label("away", "danger")
        return columns.label("running", "success")

    @display(description="Devices")
    def device_names(self, host: Host) -> str:
        return ", ".join(map(str, host.devices)) or "none"

    @display(description="Memory in use", ordering="memory_used_bytes")
    def memory(self, host: Host) -> str:
        if not host.memory_bytes:
            return "not known yet"
        used = filesizeformat(host.memory_used_bytes)
        return f"{used} of {filesizeformat(host.memory_bytes)}"

    @display(description="Walls")
    def walls_in_short(self, host: Host) -> SafeString:
        return walls_in_short(host.walls)

    @display(description="Walls")
    def walls_shown(self, host: Host) -> SafeString:
        return walls(host.walls)

    @display(description="Does not fit")
    def lacking_count(self, host: Host) -> str:
        count = len(host.lacking)
        return f"{count} version{'' if count == 1 else 's'}" if count else "–"

    @display(description="Does not fit")
    def lacking_shown(self, host: Host) -> SafeString | str:
        return (
            format_html_join(
                "",
                "<div>{} v{}: {}</div>",
                (
                    (entry["model"], entry["version"], entry["sentence"])
                    for entry in host.lacking
                ),
            )
            or "Everything fits."
        )

    @display(description="Processes")
    def processes(self, host: Host) -> SafeString | str:
        count = Engine.objects.filter(host=host.name).count()
        if not count:
            return "none yet"
        return format_html(
            '<a class="text-primary-600 dark:text-primary-500" '
            'href="{}?{}">{} engine process{}</a>',
            reverse("admin:inference_engine_changelist"),
            urlencode({"host": host.name}),
            count,
            "" if count == 1 else "es",
        )

    @display(description="Problem", empty_value="–")
    def problem(self, host: Host) -> SafeString | None:
        return columns.folded(host.error) if host.error else None
