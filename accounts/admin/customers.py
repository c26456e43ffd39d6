"""Show a customer's plan, keys, quotas, usage and refusals on one admin page."""

import datetime
import json
from typing import Any

from django.contrib import admin, messages
from django.core.exceptions import ValidationError
from django.db.models import Count, OuterRef, Q, QuerySet, Subquery
from django.db.models.functions import Coalesce
from django.http import (
    HttpRequest,
    HttpResponse,
    HttpResponseRedirect,
    StreamingHttpResponse,
)
from django.urls import reverse
from django.utils import timezone
from django.utils.safestring import SafeString
from unfold.admin import TabularInline
from unfold.contrib.filters.admin import RelatedDropdownFilter
from unfold.decorators import action, display

from accounts.admin import columns
from accounts.admin.billing import InvoicePages, this_month
from accounts.admin.bulk import BulkActions
from accounts.admin.history import HistoryAdmin
from accounts.admin.limit_forms import CustomerForm
from accounts.admin.lookup import get_or_404
from accounts.admin.members import MemberActions, MemberInline
from accounts.admin.plans import leave_dialog
from accounts.admission.limit_words import counted
from accounts.customers import changes, plans
from accounts.models import ApiKey, Customer, Plan
from accounts.quotas import display as quota_state
from accounts.usage import latencies as usage_latencies
from accounts.usage import reading, refusal_sentences, refused_calls, spans
from accounts.usage.export import csv_response

_SHOWN_DAYS = 14
# Models and keys in each list.
_MOST_USED = 8
_NOT_WHEN_ARCHIVED = ("_issue_key", "_issue_many", "_invite", "_archive")
_CHART_OPTIONS = {
    "maintainAspectRatio": False,
    "animation": False,
    "scales": {
        "x": {"stacked": True, "grid": {"display": False}},
        "y": {"stacked": True, "beginAtZero": True, "ticks": {"precision": 0}},
    },
    "plugins": {"legend": {"display": True, "position": "bottom"}},
}


class ApiKeyInline(TabularInline):  # type: ignore[misc]  # unfold is untyped
    model = ApiKey
    fields = readonly_fields = (
        "link",
        "mode",
        "badge",
        "scope_list",
        "last_used_at",
        "expires_at",
    )
    ordering = ("-created_at", "-pk")
    extra = 0
    # Some customers have thousands.
    per_page = 10
    can_delete = False
    hide_title = True
    verbose_name_plural = "API keys"

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    @display(description="key")
    def link(self, key: ApiKey) -> SafeString:
        return columns.key_link(key)

    @display(description="state")
    def badge(self, key: ApiKey) -> SafeString:
        return columns.key_state(key)

    @display(description="scopes")
    def scope_list(self, key: ApiKey) -> SafeString:
        return columns.words(key.scopes, none="none")


@admin.register(Customer)
class CustomerAdmin(InvoicePages, BulkActions, MemberActions, HistoryAdmin):
    form = CustomerForm
    list_display = ("name", "plan", "state", "active_keys", "quota", "created_at")
    list_select_related = ("plan",)
    list_filter = (("plan", RelatedDropdownFilter), "active")
    list_filter_submit = True
    # `get_search_results` also finds customers by key id.
    search_fields = ("name", "contact_email")
    ordering = ("-created_at", "-pk")
    list_per_page = 50
    # Saves a second count; the page without a search shows the number.
    show_full_result_count = False
    history_list_display = ("plan", "active")
    inlines = (ApiKeyInline, MemberInline)
    actions_list = ("import_customers",)
    actions_detail = (
        "issue_key",
        "issue_many",
        "invite",
        {
            "title": "Export",
            "icon": "download",
            "items": ["export_usage", "export_invoice"],
        },
        "archive",
        "reopen",
    )
    readonly_fields = ("archived_at",)
    change_form_outer_before_template = "accounts/customer_overview.html"
    fieldsets = (
        (None, {"fields": ("name", "plan", "active", "contact_email", "notes")}),
        (
            "What differs from its plan",
            {
                "fields": ("limit_overrides", "archived_at", "as_of"),
                "classes": ("collapse",),
            },
        ),
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[Customer]:
        customers: QuerySet[Customer] = super().get_queryset(request)
        # Unlike a join, a subquery counts only for the rows that are shown.
        keys = (
            ApiKey.objects.filter(customer=OuterRef("pk"), revoked_at=None)
            .filter(Q(expires_at=None) | Q(expires_at__gt=timezone.now()))
            .order_by()
            .values("customer")
        )
        count = keys.annotate(count=Count("pk")).values("count")
        return customers.annotate(number_of_keys=Coalesce(Subquery(count), 0))

    def get_changelist_instance(self, request: HttpRequest) -> Any:
        """Add their quotas, and how much is used, to the customers of one page."""
        changelist = super().get_changelist_instance(request)
        changelist.result_list = rows = list(changelist.result_list)
        for row in rows:
            row.quotas = plans.limits_of(row).quotas
        used = quota_state.used_by(
            [row.pk for row in rows],
            {quota.name for row in rows for quota in row.quotas},
            now=timezone.now(),
        )
        for row in rows:
            row.used = used.get(row.pk, {})
        return changelist

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Customer], search_term: str
    ) -> tuple[QuerySet[Customer], bool]:
        found, several = super().get_search_results(request, queryset, search_term)
        if not search_term.strip():
            return found, several
        keys = ApiKey.objects.filter(key_id__icontains=search_term.strip())
        return found | queryset.filter(pk__in=keys.values("customer")), several

    # Methods, because unfold looks up names of permissions in the database during
    # Django's checks, which also run before the first migration.
    def has_issue_key_permission(
        self, request: HttpRequest, object_id: Any = None
    ) -> bool:
        return request.user.has_perm("accounts.add_apikey")

    def has_export_usage_permission(
        self, request: HttpRequest, object_id: Any = None
    ) -> bool:
        return request.user.has_perm("accounts.view_usage")

    def get_inlines(self, request: HttpRequest, obj: Any) -> Any:
        return self.inlines if obj is not None else ()

    def formfield_for_foreignkey(
        self, db_field: Any, request: HttpRequest, **kwargs: Any
    ) -> Any:
        if db_field.name == "plan":
            match = request.resolver_match
            own = match.kwargs.get("object_id") if match else None
            kwargs["queryset"] = Plan.objects.filter(
                Q(retired=False) | Q(customers__pk=own)
            ).distinct()
        return super().formfield_for_foreignkey(db_field, request, **kwargs)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        # Keys and usage stay, so a customer with any of them is archived instead.
        if isinstance(obj, Customer) and (
            obj.api_keys.exists()
            or obj.usage.exists()
            or obj.usagehour_set.exists()
            or obj.statements.exists()
        ):
            return False
        return bool(super().has_delete_permission(request, obj))

    def save_model(
        self, request: HttpRequest, obj: Customer, form: Any, change: bool
    ) -> None:
        changes.save(obj)

    def delete_model(self, request: HttpRequest, obj: Customer) -> None:
        changes.delete(obj)

    def delete_queryset(
        self, request: HttpRequest, queryset: QuerySet[Customer]
    ) -> None:
        for customer in queryset:
            changes.delete(customer)

    def response_post_save_add(
        self, request: HttpRequest, obj: Customer
    ) -> HttpResponse:
        # The next step is almost always to issue its first key.
        return HttpResponseRedirect(
            reverse("admin:accounts_customer_change", args=(obj.pk,))
        )

    def render_change_form(
        self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any
    ) -> Any:
        customer = context.get("original")
        if customer is not None and request.user.has_perm("accounts.view_usage"):
            context["overview"] = overview(customer, now=timezone.now())
        return super().render_change_form(request, context, *args, **kwargs)

    @action(description="Issue key", icon="key", permissions=["issue_key"])
    def issue_key(self, request: HttpRequest, object_id: str) -> HttpResponse:
        customer = get_or_404(self, request, object_id)
        if customer.archived_at is not None:
            messages.error(request, f"{customer} is archived. Reopen it first.")
            return HttpResponseRedirect(
                reverse("admin:accounts_customer_change", args=(customer.pk,))
            )
        if not customer.active:
            messages.warning(request, f"{customer} is inactive: its keys are refused.")
        url = reverse("admin:accounts_apikey_add")
        number = customer.api_keys.count() + 1
        return HttpResponseRedirect(f"{url}?customer={customer.pk}&name=key+{number}")

    @action(
        description="Export usage",
        icon="download",
        permissions=["export_usage"],
    )
    def export_usage(
        self, request: HttpRequest, object_id: str
    ) -> StreamingHttpResponse:
        """Download the usage of this month and the last, by day."""
        customer = get_or_404(self, request, object_id)
        now = timezone.now()
        this_month = now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
        starts_at = (this_month - datetime.timedelta(days=1)).replace(day=1)
        own = spans.between(starts_at, now, customer_id=customer.pk)
        return csv_response(own, name=f"usage-{customer.pk}")

    @action(
        description="Archive",
        icon="inventory_2",
        permissions=["change"],
        dialog={
            "title": "Archive this customer?",
            "description": "Its keys are revoked for good. Its usage stays.",
            "form_submit_text": "Archive",
        },
    )
    def archive(self, request: HttpRequest, form: Any, object_id: str) -> HttpResponse:
        customer = get_or_404(self, request, object_id)
        try:
            revoked = changes.archive(customer)
        except ValidationError as error:
            messages.info(request, " ".join(error.messages))
        else:
            self.log_change(request, customer, "Archived.")
            messages.success(
                request, f"Archived {customer} and revoked {counted(revoked, 'keys')}."
            )
        return leave_dialog(
            request, reverse("admin:accounts_customer_change", args=(customer.pk,))
        )

    @action(
        description="Reopen",
        icon="unarchive",
        permissions=["change"],
        dialog={
            "title": "Reopen this customer?",
            "description": "It is active again. Its old keys stay revoked.",
            "form_submit_text": "Reopen",
        },
    )
    def reopen(self, request: HttpRequest, form: Any, object_id: str) -> HttpResponse:
        customer = get_or_404(self, request, object_id)
        try:
            changes.reopen(customer)
        except ValidationError as error:
            messages.info(request, " ".join(error.messages))
        else:
            self.log_change(request, customer, "Reopened.")
            messages.success(request, f"Reopened {customer}. Issue it a key.")
        return leave_dialog(
            request, reverse("admin:accounts_customer_change", args=(customer.pk,))
        )

    def get_actions_detail(self, request: HttpRequest, object_id: Any) -> list[Any]:
        """Offer the actions that fit: an archived customer gets no keys."""
        customer = self.get_object(request, object_id)
        archived = customer is not None and customer.archived_at is not None
        hidden = _NOT_WHEN_ARCHIVED if archived else ("_reopen",)
        return [
            action
            for action in super().get_actions_detail(request, object_id)
            if not getattr(action, "action_name", "").endswith(hidden)
        ]

    @display(
        description="state",
        label={"active": "success", "inactive": "danger", "archived": "warning"},
    )
    def state(self, customer: Customer) -> str:
        if customer.archived_at is not None:
            return "archived"
        return "active" if customer.active else "inactive"

    @display(description="active keys", ordering="number_of_keys")
    def active_keys(self, customer: Any) -> int:
        count: int = customer.number_of_keys
        return count

    @display(description="quota in use")
    def quota(self, customer: Any) -> SafeString | str:
        """Show the fullest quota, by recorded usage, without leased units."""
        bars = [
            quota_state.quota_bar(
                title=quota.name,
                unit=quota.unit,
                used=customer.used.get((quota.name, quota.unit), 0),
                limit=quota.limit,
            )
            for quota in customer.quotas
        ]
        if not bars:
            return "no quota"
        return columns.render_quota(max(bars, key=lambda bar: bar["percent"]))


def overview(customer: Customer, *, now: datetime.datetime) -> dict[str, Any]:
    """Gather a customer's quotas, and usage and refusals of the last days."""
    today = now.replace(hour=0, minute=0, second=0, microsecond=0)
    starts_at = today - datetime.timedelta(days=_SHOWN_DAYS - 1)
    recent = spans.between(starts_at, now, customer_id=customer.pk)
    calls = reading.over_time(recent, "day", "status", "code")
    latencies = usage_latencies.latencies(recent)
    models, keys = (
        rows[:_MOST_USED] for rows in reading.most_used(recent, "model", "key_id")
    )
    reading.name_keys(customer.pk, keys)
    return {
        "days": _SHOWN_DAYS,
        "banners": quota_state.banners(customer, now=now),
        "quotas": quota_state.bars(customer, now=now),
        "totals": reading.add_up(calls),
        "p50_ms": latencies.percentile_ms(50),
        "p95_ms": latencies.percentile_ms(95),
        "parts": [
            ("By model", _shares(models, "model")),
            ("By key", _shares(keys, "name")),
        ],
        "costs": this_month(customer, now=now),
        "newest_refusals": [
            (refusal, refusal_sentences.sentences(refusal.limit, now=now))
            for refusal in refused_calls.of_customer(customer.pk)[:8]
        ],
        "refusals": reading.refusals(calls)[:8],
        "chart": json.dumps(_chart(reading.per(calls, "start"), starts_at=starts_at)),
        "chart_options": json.dumps(_CHART_OPTIONS),
    }


def _chart(
    by_day: list[dict[str, Any]], *, starts_at: datetime.datetime
) -> dict[str, Any]:
    rows = {row["start"]: row for row in by_day}
    days = [starts_at + datetime.timedelta(days=day) for day in range(_SHOWN_DAYS)]
    errors = [rows[day]["errors"] if day in rows else 0 for day in days]
    requests = [rows[day]["requests"] if day in rows else 0 for day in days]
    good = [total - bad for total, bad in zip(requests, errors, strict=True)]
    return {
        "labels": [f"{day:%b} {day.day}" for day in days],
        "datasets": [
            {"label": "answered", "data": good, "backgroundColor": "#6366f1"},
            {
                "label": "refused or failed",
                "data": errors,
                "backgroundColor": "#f97316",
            },
        ],
    }


def _shares(rows: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    """Describe bars whose widths are shares of the largest row."""
    largest = max((row["requests"] for row in rows), default=0)
    return [
        {
            "name": row[name] or "none",
            "requests": row["requests"],
            "rows": row["rows"],
            "errors": row["errors"],
            "percent": 100 * row["requests"] // largest,
            "level": "good",
        }
        for row in rows
    ]
