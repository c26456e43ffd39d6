"""Admin page of the environments that are built for models, with the log of each."""

from typing import Any

from django import forms
from django.contrib import admin
from django.db.models import Count, OuterRef, QuerySet, Subquery
from django.db.models.functions import Coalesce
from django.http import HttpRequest, HttpResponse
from django.template.defaultfilters import filesizeformat
from django.template.loader import render_to_string
from django.urls import reverse
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from unfold.admin import ModelAdmin
from unfold.decorators import action, display

from inference.admin.read_only import ReadOnly
from inference.environments import turn
from inference.models import ModelEnvironment
from registry.admin.dialogs import dialog, go_back
from registry.admin.lookup import get_or_404
from registry.models import ModelVersion

_State = ModelEnvironment.State
_STATE_COLORS = {
    _State.WAITING.value: "info",
    _State.BUILDING.value: "warning",
    _State.READY.value: "success",
    _State.FAILED.value: "danger",
}
_SHOWN_VERSIONS = 50


@admin.register(ModelEnvironment)
class ModelEnvironmentAdmin(ReadOnly, ModelAdmin):  # type: ignore[misc]
    list_display = (
        "name",
        "state_label",
        "python",
        "packages",
        "size",
        "version_count",
        "error",
        "built_at",
        "used_at",
    )
    list_filter = ("state",)
    search_fields = ("digest", "requirements")
    list_per_page = 50
    fields = (
        "digest",
        "build",
        "python",
        "requirement_lines",
        "versions",
        "size",
        "created_at",
        "started_at",
        "built_at",
        "used_at",
    )
    readonly_fields = fields
    list_before_template = "inference/environments_note.html"
    has_history = True
    actions_row = ("build_again",)
    actions_detail = ("build_again",)

    def has_build_permission(self, request: HttpRequest, *_: Any) -> bool:
        return request.user.has_perm("inference.change_modelenvironment")

    def get_queryset(self, request: HttpRequest) -> QuerySet[ModelEnvironment]:
        rows = super().get_queryset(request)
        users = ModelVersion.objects.filter(environment=OuterRef("digest")).order_by()
        counted = users.values("environment").annotate(count=Count("pk"))
        return rows.annotate(  # type: ignore[no-any-return]
            user_count=Coalesce(Subquery(counted.values("count")), 0)
        ).defer("log")

    @display(description="Environment", ordering="digest")
    def name(self, row: ModelEnvironment) -> str:
        return str(row)

    @display(description="State", ordering="state", label=_STATE_COLORS)
    def state_label(self, row: ModelEnvironment) -> str:
        return row.state

    @display(description="Requirements")
    def packages(self, row: ModelEnvironment) -> str:
        shown = ", ".join(row.requirements[:3])
        more = len(row.requirements) - 3
        return f"{shown} +{more}" if more > 0 else shown

    @display(description="Size", ordering="size_bytes")
    def size(self, row: ModelEnvironment) -> str:
        return str(filesizeformat(row.size_bytes)) if row.size_bytes else "–"

    @display(description="Versions", ordering="user_count")
    def version_count(self, row: Any) -> int:
        return int(row.user_count)

    @display(description="Build")
    def build(self, row: ModelEnvironment) -> SafeString:
        """Show the state and the log; the page asks again while it is not done."""
        return SafeString(
            render_to_string(
                "inference/environment_build.html",
                {
                    "row": row,
                    "running": row.state in (_State.WAITING, _State.BUILDING),
                },
            )
        )

    @display(description="Requirements")
    def requirement_lines(self, row: ModelEnvironment) -> SafeString:
        return format_html("<pre>{}</pre>", "\n".join(row.requirements))

    @display(description="Versions")
    def versions(self, row: ModelEnvironment) -> SafeString:
        users = turn.users_of(row.pk).only("version", "registered_model__name")
        found = list(users[: _SHOWN_VERSIONS + 1])
        if not found:
            return SafeString("none")
        links = format_html_join(
            ", ",
            '<a class="text-primary-600 dark:text-primary-500" href="{}">{}</a>',
            (
                (
                    reverse("admin:registry_modelversion_change", args=[version.pk]),
                    version,
                )
                for version in found[:_SHOWN_VERSIONS]
            ),
        )
        more = " and more" if len(found) > _SHOWN_VERSIONS else ""
        return format_html("{}{}", links, more)

    @action(
        description="Build again",
        icon="refresh",
        permissions=["build"],
        dialog=dialog(
            "Build this environment again?",
            text="A worker tries it at once, without waiting for its next try.",
            submit="Build again",
        ),
    )
    def build_again(
        self, request: HttpRequest, form: forms.Form, object_id: str
    ) -> HttpResponse:
        row = get_or_404(self, request, object_id)
        if turn.build_again(row):
            self.log_change(request, row, "Build again.")
            self.message_user(request, f"{row} is built soon; its log shows how.")
        else:
            self.message_user(request, f"{row} did not fail, so nothing was done.")
        otherwise = reverse("admin:inference_modelenvironment_changelist")
        return go_back(request, otherwise=otherwise)
