"""Admin page of everything that happened to versions while they were served."""

from typing import Any

from django.contrib import admin
from django.http import HttpRequest
from django.template.loader import render_to_string
from django.urls import reverse
from django.utils.html import format_html, format_html_join
from django.utils.http import urlencode
from django.utils.safestring import SafeString
from unfold.admin import ModelAdmin
from unfold.contrib.filters.admin import (
    ChoicesDropdownFilter,
    RangeDateTimeFilter,
    SingleNumericFilter,
)
from unfold.decorators import display

from accounts.admin.filters import ModelFilter
from inference.admin.read_only import ReadOnly
from inference.models import VersionEvent
from registry.admin import columns
from registry.models import ModelVersion

_Kind = VersionEvent.Kind
_COLOURS = {
    _Kind.DEATH: "danger",
    _Kind.QUARANTINED: "danger",
    _Kind.LOAD_FAILED: "danger",
    _Kind.FAILURE: "warning",
    _Kind.LEAK: "warning",
    _Kind.RELEASED: "success",
    _Kind.MOVED: "info",
    _Kind.RECYCLED: "info",
}


def list_url(version: ModelVersion) -> str:
    """Return the address of the list of all events of one version."""
    name, number = version.registered_model.name, str(version.version)
    query = urlencode({"model": name, "version": number})
    return f"{reverse('admin:inference_versionevent_changelist')}?{query}"


@admin.register(VersionEvent)
class VersionEventAdmin(ReadOnly, ModelAdmin):  # type: ignore[misc]
    list_display = ("at", "model_version", "kind_label", "what", "process")
    list_filter = (
        ModelFilter,
        ("version", SingleNumericFilter),
        ("kind", ChoicesDropdownFilter),
        ("at", RangeDateTimeFilter),
    )
    list_filter_submit = True
    list_per_page = 50
    search_fields = ("model", "text", "engine", "host", "request_ids")
    search_help_text = "Model, text, process, host or request id."
    fields = (
        "at",
        "model_version",
        "kind_label",
        "text",
        "whole_detail",
        "process",
        "ending",
        "rows",
        "requests",
    )
    readonly_fields = fields
    list_before_template = "inference/version_events_note.html"

    def get_changelist_instance(self, request: HttpRequest) -> Any:
        """Find the rows of all versions on the page at once, to link them."""
        changelist = super().get_changelist_instance(request)
        changelist.result_list = list(changelist.result_list)
        if request.user.has_perm("registry.view_modelversion"):
            _find_versions(changelist.result_list)
        return changelist

    def get_object(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        event = super().get_object(request, *args, **kwargs)
        if event and request.user.has_perm("registry.view_modelversion"):
            _find_versions([event])
        return event

    @display(description="Version", ordering="model")
    def model_version(self, event: Any) -> SafeString | str:
        name = f"{event.model} v{event.version}"
        version_id = getattr(event, "version_id", None)
        if version_id is None:
            return name
        return format_html(
            '<a class="text-primary-600 dark:text-primary-500" href="{}">{}</a>',
            reverse("admin:registry_modelversion_change", args=[version_id]),
            name,
        )

    @display(description="Kind", ordering="kind")
    def kind_label(self, event: VersionEvent) -> SafeString:
        return columns.label(event.get_kind_display(), _COLOURS[_Kind(event.kind)])

    @display(description="What happened")
    def what(self, event: VersionEvent) -> SafeString:
        return columns.folded(event.text)

    @display(description="Process", ordering="engine", empty_value="–")
    def process(self, event: VersionEvent) -> str | None:
        return " on ".join(filter(None, (event.engine, event.host))) or None

    @display(description="Output or trace", empty_value="–")
    def whole_detail(self, event: VersionEvent) -> SafeString | None:
        if not event.detail:
            return None
        context = {"text": event.detail}
        return SafeString(render_to_string("registry/whole_text.html", context))

    @display(description="How the process ended", empty_value="–")
    def ending(self, event: VersionEvent) -> str | None:
        if event.signal:
            return f"signal {event.signal}"
        return None if event.exit_code is None else f"exit code {event.exit_code}"

    @display(description="Requests", empty_value="–")
    def requests(self, event: VersionEvent) -> SafeString | None:
        lines = [(request_id,) for request_id in event.request_ids]
        return format_html_join("", "<div><code>{}</code></div>", lines) or None


def _find_versions(events: list[Any]) -> None:
    """Keep on each event the id of its version's row, if the registry has one."""
    found = ModelVersion.objects.filter(
        registered_model__name__in={event.model for event in events},
        version__in={event.version for event in events},
    ).values_list("registered_model__name", "version", "pk")
    ids = {(model, version): pk for model, version, pk in found}
    for event in events:
        event.version_id = ids.get((event.model, event.version))
