"""Prices and warnings in the admin, and invoice lines as a file."""

import datetime
from typing import Any

from django.contrib import admin
from django.http import StreamingHttpResponse
from unfold.contrib.filters.admin import RelatedDropdownFilter
from unfold.decorators import display

from accounts import admin_columns, billing
from accounts.admin_history import HistoryAdmin
from accounts.admin_usage import ReadOnlyAdmin, write_lines
from accounts.models import Customer, LimitEvent, Price

_SHOWN_VERSIONS = 8
_SHOWN_MONTHS = 24


@admin.register(Price)
class PriceAdmin(HistoryAdmin):
    list_display = ("plan", "unit", "model_name", "amount", "valid_from")
    list_select_related = ("plan",)
    list_filter = (("plan", RelatedDropdownFilter), "unit")
    search_fields = ("plan__name", "model")
    ordering = ("plan__name", "unit", "model", "-valid_from")
    history_list_display = ("amount", "valid_from")
    fields = ("plan", "unit", "model", "amount", "valid_from")

    @display(description="model", ordering="model")
    def model_name(self, price: Price) -> str:
        return price.model or "every model"


@admin.register(LimitEvent)
class LimitEventAdmin(ReadOnlyAdmin):
    """What customers were warned of."""

    list_display = ("at", "customer_name", "quota", "used_of", "notified_at")
    list_select_related = ("customer",)
    list_filter = (("customer", RelatedDropdownFilter), "threshold_percent")
    search_fields = ("customer__name",)
    ordering = ("-at",)

    @display(description="customer", ordering="customer__name")
    def customer_name(self, event: LimitEvent) -> Any:
        return admin_columns.customer_link(event.customer)

    @display(description="quota")
    def quota(self, event: LimitEvent) -> str:
        return f"{event.threshold_percent} % of {event.name}, {event.unit}"

    @display(description="used", ordering="used")
    def used_of(self, event: LimitEvent) -> str:
        return f"{event.used:,} of {event.limit:,}"


def this_month(customer: Customer, *, now: datetime.datetime) -> dict[str, Any] | None:
    """Price the month so far by version; None where no unit has a price."""
    lines = list(billing.lines(customer, month=now.date()))
    if all(line.price is None for line in lines):
        return None
    return {
        "total": billing.plain(billing.total(lines)),
        "versions": [
            {
                "model": each.model,
                "version": each.version,
                "requests": each.requests,
                "cost": billing.plain(each.cost),
                "per_request": ""
                if each.cost_per_request is None
                else billing.plain(each.cost_per_request),
            }
            for each in billing.by_version(lines)[:_SHOWN_VERSIONS]
        ],
    }


def months(customer: Customer, *, now: datetime.datetime) -> list[datetime.date]:
    """List the months to be billed, newest first, since there is the customer."""
    month, first = now.date().replace(day=1), customer.created_at.date().replace(day=1)
    found = [month]
    while month > first and len(found) < _SHOWN_MONTHS:
        month = (month - datetime.timedelta(days=1)).replace(day=1)
        found.append(month)
    return found


def invoice_response(
    customer: Customer, *, month: datetime.date
) -> StreamingHttpResponse:
    """Stream the invoice lines of one month as a CSV file."""
    name = f"invoice-{customer.pk}-{month:%Y-%m}.csv"
    return StreamingHttpResponse(
        write_lines(billing.csv_rows(customer, month=month)),
        content_type="text/csv; charset=utf-8",
        headers={"Content-Disposition": f'attachment; filename="{name}"'},
    )
