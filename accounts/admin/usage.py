"""Show and export usage and quota counters in the admin; nobody can change them."""

from typing import Any, ClassVar

from django.contrib import admin, messages
from django.db.models import F, Q, QuerySet
from django.http import HttpRequest, StreamingHttpResponse
from django.utils.safestring import SafeString
from unfold.admin import ModelAdmin
from unfold.contrib.filters.admin import AutocompleteSelectFilter, RangeDateTimeFilter
from unfold.decorators import display

from accounts.admin import columns
from accounts.admin.filters import (
    ModelFilter,
    NewestPaginator,
    OperationFilter,
    ResultFilter,
)
from accounts.models import ApiKey, Customer, QuotaCounter, Usage, UsageDay, UsageHour
from accounts.models.usage import UsageSums
from accounts.usage import spans
from accounts.usage.export import csv_response
from accounts.usage.grains import Grain

# Customers or keys that one search looks for at most.
_MOST_FOUND = 200
# Days in one CSV file: a quarter of a year.
_MOST_DAYS = 92


class ReadOnlyAdmin(ModelAdmin):  # type: ignore[misc]  # unfold is untyped
    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


class UsageSumsAdmin(ReadOnlyAdmin):
    """Calls of one kind, added up over a minute, an hour or a day."""

    # The field with the start of a row's time, and how long that time is.
    time_field: ClassVar[str] = "start"
    grain: ClassVar[Grain]
    shown = ("customer_name", "public_id", "call", "result", "requests", "row_count")
    # No filter reads its choices from the rows: there are millions.
    filters = (ModelFilter, OperationFilter, ResultFilter)
    list_filter_submit = True
    list_per_page = 50
    # To count a large table takes too long.
    show_full_result_count = False
    paginator = NewestPaginator
    list_before_template = "accounts/newest_rows_note.html"
    # Any other order would sort all rows.
    sortable_by = ()
    # `get_search_results` looks each of them up by an index.
    search_fields = ("key_id",)
    search_help_text = "Key id, customer's name or model's name."
    actions = ("export_csv",)

    def get_list_display(self, request: HttpRequest) -> tuple[str, ...]:
        return (self.time_field, *self.shown)

    def get_list_filter(self, request: HttpRequest) -> tuple[Any, ...]:
        return (
            ("customer", AutocompleteSelectFilter),
            (self.time_field, RangeDateTimeFilter),
            *self.filters,
        )

    def get_ordering(self, request: HttpRequest) -> tuple[str, ...]:
        # The order of the indexes, so that nothing must be sorted.
        return (f"-{self.time_field}", "-customer_id", "-id")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        rows: QuerySet[Any] = super().get_queryset(request)
        # With a join, a database may begin with customers, and sort all rows.
        return rows.prefetch_related("customer")

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        """Find keys and customers in their own tables, then select their rows."""
        term = search_term.strip()
        if not term:
            return queryset, False
        customers = set(
            Customer.objects.filter(name__icontains=term).values_list("pk", flat=True)[
                :_MOST_FOUND
            ]
        )
        keys = list(
            ApiKey.objects.filter(key_id__icontains=term).values_list(
                "key_id", "customer_id"
            )[:_MOST_FOUND]
        )
        if customers or keys:
            owners = customers | {customer for _, customer in keys}
            found = Q(customer__in=customers) | Q(key_id__in=[key for key, _ in keys])
            return queryset.filter(found, customer__in=owners), False
        return queryset.filter(model=term), False

    @admin.action(description="Export as CSV, by day", permissions=["view"])
    def export_csv(
        self, request: HttpRequest, queryset: QuerySet[Any]
    ) -> StreamingHttpResponse | None:
        selected = spans.Span(
            (queryset.order_by().annotate(at=F(self.time_field)),), self.grain
        )
        days = len(spans.days(selected))
        if days > _MOST_DAYS:
            messages.error(
                request,
                f"These rows span {days:,} days, and a file has at most {_MOST_DAYS}."
                " Filter them by time first.",
            )
            return None
        return csv_response(selected, name="usage")

    @display(description="customer", ordering="customer__name")
    def customer_name(self, row: Any) -> SafeString:
        return columns.customer_link(row.customer)

    @display(description="key id", ordering="key_id")
    def public_id(self, row: UsageSums) -> SafeString:
        return columns.code(row.key_id)

    @display(description="call", ordering="model")
    def call(self, row: UsageSums) -> SafeString:
        version = f"v{row.version}" if row.version else ""
        return columns.two_lines(
            row.model or "–", f"{row.operation} {version} {row.variant}"
        )

    @display(
        description="result",
        ordering="status",
        label={"answered": "success", "refused": "warning", "failed": "danger"},
    )
    def result(self, row: UsageSums) -> tuple[str, str]:
        if row.status < 400:
            return "answered", f"{row.status}"
        kind = "refused" if row.status < 500 else "failed"
        return kind, f"{row.status} {row.code}".strip()

    @display(description="rows", ordering="rows")
    def row_count(self, row: UsageSums) -> SafeString:
        return columns.two_lines(f"{row.rows:,}", f"{row.charged_rows:,} charged")


@admin.register(Usage)
class UsageAdmin(UsageSumsAdmin):
    time_field = "minute"
    grain = "minute"


@admin.register(UsageHour)
class UsageHourAdmin(UsageSumsAdmin):
    grain = "hour"


@admin.register(UsageDay)
class UsageDayAdmin(UsageSumsAdmin):
    """Days that have ended; they stay when their minutes are deleted."""

    grain = "day"


@admin.register(QuotaCounter)
class QuotaCounterAdmin(ReadOnlyAdmin):
    """Units lent or spent per window, which gateways cannot exceed."""

    list_display = ("customer", "name", "unit", "window_start", "lent_or_spent")
    list_select_related = ("customer",)
    list_filter = ("name", ("customer", AutocompleteSelectFilter))
    list_filter_submit = True
    search_fields = ("customer__name",)
    ordering = ("-window_start", "-pk")
    list_per_page = 50

    @display(description="lent or spent", ordering="granted")
    def lent_or_spent(self, counter: QuotaCounter) -> int:
        return counter.granted
