"""Admin pages of registered models."""

from typing import Any

from django import forms
from django.contrib import admin
from django.db.models import Count, OuterRef, QuerySet, Subquery
from django.db.models.functions import Coalesce
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.safestring import SafeString
from unfold.admin import TabularInline
from unfold.decorators import action, display

from registry import changes
from registry.admin import columns
from registry.admin.dialogs import answer, dialog
from registry.admin.history import HistoryAdmin
from registry.admin.json_field import JsonTextField
from registry.admin.lookup import get_or_404
from registry.admin.sync import SyncBannerMixin
from registry.admin.versions import VersionColumns
from registry.models import ModelVersion, RegisteredModel, Route
from registry.rules import metadata

# A trusted model runs its author's code, so what the code may do has a permission of
# its own.
_TRUST = ("trusted", "network")


class VersionInline(VersionColumns, TabularInline):  # type: ignore[misc]  # unfold is untyped
    model = ModelVersion
    fields: tuple[str, ...] = (
        "link",
        "roles",
        "aliases",
        "metrics_text",
        "artifact",
        "problems",
    )
    readonly_fields = fields
    ordering = ("-version",)
    extra = 0
    per_page = 20
    can_delete = False
    hide_title = True
    verbose_name_plural = "versions"

    @display(description="version")
    def link(self, version: ModelVersion) -> SafeString:
        return columns.version_link(version)


class ModelForm(forms.ModelForm):  # type: ignore[type-arg]  # not generic at run time
    process = JsonTextField(
        nothing={},
        example={"isolation": "own", "replicas": 2, "memory_mb": 2000},
        help_text="How the processes of its versions run: isolation (own, shared or "
        "group NAME), replicas, max_run_s, memory_mb, recycle_after_calls, "
        "recycle_after_mb, repeatable, network, log_values. What is set here replaces "
        "what each version's metadata says. Empty: the versions' own.",
    )

    class Meta:
        model = RegisteredModel
        fields = ("public", "trusted", "network", "process")

    def clean_process(self) -> Any:
        process = self.cleaned_data["process"]
        problems = metadata.check_process(process)
        if problems:
            raise forms.ValidationError(problems)
        return process


@admin.register(RegisteredModel)
class RegisteredModelAdmin(SyncBannerMixin, HistoryAdmin):
    form = ModelForm
    list_display = ("name", "traffic", "version_count", "state", "trusted", "public")
    list_select_related = (
        "route",
        *(f"route__{name}" for name in Route.VERSIONS),
    )
    list_filter = ("trusted", "public")
    search_fields = ("name", "description")
    ordering = ("-created_at", "-pk")
    list_per_page = 50
    inlines = (VersionInline,)
    actions_detail: tuple[str, ...] = ("make_site_default",)
    history_list_display = ("trusted", "network", "public")
    fieldsets = (
        (None, {"fields": ("name", "description", "traffic", "state")}),
        ("Access", {"fields": ("public", "site_default")}),
        ("Its code", {"fields": (*_TRUST, "process")}),
        ("In MLflow", {"fields": ("tags", "missing_since", "created_at")}),
    )
    readonly_fields: tuple[str, ...] = (
        "name",
        "description",
        "traffic",
        "state",
        "site_default",
        "tags",
        "missing_since",
        "created_at",
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[RegisteredModel]:
        found: QuerySet[RegisteredModel] = super().get_queryset(request)
        # A subquery, not a join: it counts only for the rows of this page.
        versions = (
            ModelVersion.objects.filter(registered_model=OuterRef("pk"))
            .order_by()
            .values("registered_model")
        )
        count = versions.annotate(count=Count("pk")).values("count")
        return found.annotate(number_of_versions=Coalesce(Subquery(count), 0))

    def get_readonly_fields(
        self, request: HttpRequest, obj: Any = None
    ) -> tuple[str, ...]:
        if request.user.has_perm("registry.trust_registeredmodel"):
            return self.readonly_fields
        return (*self.readonly_fields, *_TRUST)

    def save_model(
        self, request: HttpRequest, obj: RegisteredModel, form: Any, change: bool
    ) -> None:
        changed = ", ".join(form.changed_data) or "nothing"
        changes.save(obj, by=request.user, reason=f"changed {changed} in the admin")

    @display(description="traffic")
    def traffic(self, model: RegisteredModel) -> SafeString:
        return columns.split(getattr(model, "route", None))

    @display(description="versions", ordering="number_of_versions")
    def version_count(self, model: Any) -> int:
        count: int = model.number_of_versions
        return count

    @display(description="state")
    def state(self, model: RegisteredModel) -> SafeString:
        route = getattr(model, "route", None)
        if model.missing_since:
            return columns.label("gone from MLflow", "danger")
        if route is None:
            return columns.label("no route", "warning")
        if not route.enabled:
            return columns.label("route is off", "warning")
        return columns.label("routed", "success")

    @action(
        description="Make site default",
        icon="home",
        permissions=["make_site_default"],
        dialog=dialog(
            "Answer requests that name no model?",
            text="POST /api/v1/predict goes to this model from then on.",
            submit="Make site default",
        ),
    )
    def make_site_default(
        self, request: HttpRequest, form: forms.Form, object_id: str
    ) -> HttpResponse:
        model = get_or_404(self, request, object_id)
        return answer(
            request,
            lambda: changes.make_site_default(model, by=request.user),
            done=f"{model} answers requests that name no model.",
            otherwise=reverse("admin:registry_registeredmodel_change", args=[model.pk]),
        )
