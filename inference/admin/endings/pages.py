"""Admin pages of deprecations."""

from typing import Any

from django import forms
from django.contrib import admin, messages
from django.http import HttpRequest
from django.utils import timezone
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from unfold.decorators import display

from inference.endings import telling
from registry import changes
from registry.admin.history import HistoryAdmin
from registry.models import Deprecation


class DeprecationForm(forms.ModelForm):  # type: ignore[type-arg]  # not generic at run time
    class Meta:
        model = Deprecation
        fields = (
            "registered_model",
            "version",
            "deprecated_at",
            "ends_at",
            "use_instead",
        )

    def clean(self) -> dict[str, Any]:
        data: dict[str, Any] = super().clean() or {}
        version, model = data.get("version"), data.get("registered_model")
        if version and model and version.registered_model_id != model.pk:
            self.add_error("version", f"{version} is of another model.")
        begins, ends = data.get("deprecated_at"), data.get("ends_at")
        if begins is not None and ends is not None and ends < begins:
            self.add_error("ends_at", "It cannot end before it is deprecated.")
        return data


@admin.register(Deprecation)
class DeprecationAdmin(HistoryAdmin):
    form = DeprecationForm
    list_display = ("what", "deprecated_at", "ends_at", "use_instead")
    list_select_related = ("registered_model", "version__registered_model")
    search_fields = ("registered_model__name",)
    ordering = ("ends_at", "pk")
    list_per_page = 50
    autocomplete_fields = ("registered_model", "version")

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return request.user.has_perm("registry.add_deprecation")

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return request.user.has_perm("registry.delete_deprecation")

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> list[str]:
        """Keep what ends: callers of one model must not be told of another."""
        return (
            ["called_by"]
            if obj is None
            else ["registered_model", "version", "called_by"]
        )

    def get_fields(self, request: HttpRequest, obj: Any = None) -> list[str]:
        fields = list(DeprecationForm.Meta.fields)
        return fields if obj is None else [*fields, "called_by"]

    def save_model(
        self, request: HttpRequest, obj: Deprecation, form: Any, change: bool
    ) -> None:
        changes.save(obj, by=request.user, reason=f"ends at {obj.ends_at:%Y-%m-%d}")
        told = telling.tell(obj, now=timezone.now())
        customers = "1 customer is" if told == 1 else f"{told} customers are"
        messages.info(
            request,
            f"{customers} told in the portal, and by mail to their contacts: who "
            f"called it in the last {telling.DAYS} days.",
        )

    def delete_model(self, request: HttpRequest, obj: Deprecation) -> None:
        telling.take_back(obj.pk)
        changes.delete(obj, by=request.user)

    def delete_queryset(self, request: HttpRequest, queryset: Any) -> None:
        for row in queryset:
            self.delete_model(request, row)

    @display(description="what ends", ordering="registered_model__name")
    def what(self, row: Deprecation) -> str:
        return str(row.version or row.registered_model)

    @display(description="called in the last 30 days by")
    def called_by(self, row: Deprecation) -> SafeString | str:
        found = telling.callers(row, now=timezone.now())
        if not found:
            return "nobody"
        names = (
            (f"{it.customer.name} ({it.customer.pk})", f"{it.calls:,}") for it in found
        )
        lines = format_html_join("", "<li>{}: {} calls</li>", names)
        return format_html('<ul style="overflow-wrap: anywhere">{}</ul>', lines)
