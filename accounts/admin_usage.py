"""Usage and quota counters in the admin: to read and to export, never to change."""

import csv
from collections.abc import Iterable, Iterator
from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest, StreamingHttpResponse
from django.utils import timezone
from django.utils.safestring import SafeString
from unfold.admin import ModelAdmin
from unfold.contrib.filters.admin import (
    AllValuesCheckboxFilter,
    RangeDateTimeFilter,
    RelatedDropdownFilter,
)
from unfold.decorators import display

from accounts import admin_columns, usage
from accounts.models import QuotaCounter, Usage


class ReadOnlyAdmin(ModelAdmin):  # type: ignore[misc]  # unfold is untyped
    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


@admin.register(Usage)
class UsageAdmin(ReadOnlyAdmin):
    list_display = (
        "minute",
        "customer_name",
        "public_id",
        "call",
        "result",
        "requests",
        "row_count",
    )
    list_display_links = ("minute",)
    list_select_related = ("customer",)
    list_filter = (
        ("customer", RelatedDropdownFilter),
        ("minute", RangeDateTimeFilter),
        ("operation", AllValuesCheckboxFilter),
        ("model", AllValuesCheckboxFilter),
        ("status", AllValuesCheckboxFilter),
    )
    list_filter_submit = True
    list_per_page = 50
    # Counting a large table for a line of text is not worth its time.
    show_full_result_count = False
    search_fields = ("key_id", "customer__name", "model")
    ordering = ("-minute", "-id")
    actions = ("export_csv",)

    @admin.action(description="Export as CSV, by day", permissions=["view"])
    def export_csv(
        self, request: HttpRequest, queryset: QuerySet[Usage]
    ) -> StreamingHttpResponse:
        return csv_response(usage.of_minutes(queryset), name="usage")

    @display(description="customer", ordering="customer__name")
    def customer_name(self, row: Usage) -> SafeString:
        return admin_columns.customer_link(row.customer)

    @display(description="key id", ordering="key_id")
    def public_id(self, row: Usage) -> SafeString:
        return admin_columns.code(row.key_id)

    @display(description="call", ordering="model")
    def call(self, row: Usage) -> SafeString:
        version = f"v{row.version}" if row.version else ""
        return admin_columns.two_lines(
            row.model or "–", f"{row.operation} {version} {row.variant}"
        )

    @display(
        description="result",
        ordering="status",
        label={"answered": "success", "refused": "warning", "failed": "danger"},
    )
    def result(self, row: Usage) -> tuple[str, str]:
        if row.status < 400:
            return "answered", f"{row.status}"
        kind = "refused" if row.status < 500 else "failed"
        return kind, f"{row.status} {row.code}".strip()

    @display(description="rows", ordering="rows")
    def row_count(self, row: Usage) -> SafeString:
        return admin_columns.two_lines(f"{row.rows:,}", f"{row.charged_rows:,} charged")


@admin.register(QuotaCounter)
class QuotaCounterAdmin(ReadOnlyAdmin):
    """What was lent or spent per window: the truth that no gateway can exceed."""

    list_display = ("customer", "name", "unit", "window_start", "granted")
    list_select_related = ("customer",)
    list_filter = ("name", ("customer", RelatedDropdownFilter))
    list_filter_submit = True
    search_fields = ("customer__name",)
    ordering = ("-window_start", "customer__name", "name")


class _Echo:
    """Give csv.writer a file that hands each line straight back."""

    def write(self, line: str) -> str:
        return line


def csv_response(selected: usage.Span, *, name: str) -> StreamingHttpResponse:
    """Stream the selected usage as a CSV file, however large."""
    today = timezone.now().date().isoformat()
    return StreamingHttpResponse(
        write_lines(usage.csv_rows(selected)),
        content_type="text/csv; charset=utf-8",
        headers={"Content-Disposition": f'attachment; filename="{name}-{today}.csv"'},
    )


def write_lines(rows: Iterable[tuple[Any, ...]]) -> Iterator[str]:
    writer = csv.writer(_Echo())
    for row in rows:
        line: str = writer.writerow(row)
        yield line
