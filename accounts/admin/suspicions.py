"""Show suspicious patterns in the admin, and let people dismiss them."""

from typing import Any

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils import timezone
from unfold.contrib.filters.admin import AutocompleteSelectFilter
from unfold.decorators import display

from accounts.admin import columns
from accounts.admin.usage import ReadOnlyAdmin
from accounts.models import Suspicion
from accounts.usage import suspicions


@admin.register(Suspicion)
class SuspicionAdmin(ReadOnlyAdmin):
    list_display = ("at", "customer_name", "key_id", "kind", "detail", "state")
    list_select_related = ("customer",)
    list_filter = ("kind", ("customer", AutocompleteSelectFilter))
    search_fields = ("key_id", "customer__name")
    ordering = ("dismissed_at", "-at")
    actions = ("dismiss",)

    def has_dismiss_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("accounts.change_suspicion")

    @admin.action(description="Dismiss", permissions=["dismiss"])
    def dismiss(self, request: HttpRequest, queryset: QuerySet[Suspicion]) -> None:
        now = timezone.now()
        dismissed = 0
        for suspicion in queryset:
            if suspicions.dismiss(suspicion, by=request.user.pk, now=now):
                self.log_change(request, suspicion, "Dismissed.")
                dismissed += 1
        messages.success(request, f"{dismissed} dismissed.")

    @display(description="customer", ordering="customer__name")
    def customer_name(self, suspicion: Suspicion) -> Any:
        return columns.customer_link(suspicion.customer)

    @display(
        description="state", label={"to look at": "warning", "dismissed": "success"}
    )
    def state(self, suspicion: Suspicion) -> str:
        return "to look at" if suspicion.dismissed_at is None else "dismissed"
