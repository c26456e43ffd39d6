"""Prices, statements and warnings in the admin, and invoice lines as a file."""

import datetime
from collections import defaultdict
from collections.abc import Iterable
from typing import Any, cast

from django import forms
from django.contrib import admin, messages
from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied, ValidationError
from django.db.models import QuerySet
from django.http import (
    Http404,
    HttpRequest,
    HttpResponse,
    HttpResponseRedirect,
    StreamingHttpResponse,
)
from django.shortcuts import get_object_or_404
from django.urls import reverse
from django.utils import timezone
from unfold.contrib.filters.admin import AutocompleteSelectFilter, RelatedDropdownFilter
from unfold.decorators import action, display
from unfold.widgets import UnfoldAdminSelectWidget

from accounts.admin import columns
from accounts.admin.history import GuardedForm, HistoryAdmin
from accounts.admin.lookup import get_or_404
from accounts.admin.usage import ReadOnlyAdmin
from accounts.customers import api_keys
from accounts.models import Customer, LimitEvent, Price, Statement
from accounts.usage import billing, statements
from accounts.usage.export import write_lines

_SHOWN_VERSIONS = 8
_SHOWN_MONTHS = 24


class PriceForm(GuardedForm):
    """Offer all registered models, and the one that the price has already."""

    model = forms.ChoiceField(required=False, widget=UnfoldAdminSelectWidget)

    class Meta:
        model = Price
        fields = ("plan", "unit", "model", "amount", "valid_from")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if "model" in self.fields:
            names = {*api_keys.known_models(), self.instance.model} - {""}
            field = cast(forms.ChoiceField, self.fields["model"])
            field.choices = [("", "every model"), *((n, n) for n in sorted(names))]


@admin.register(Price)
class PriceAdmin(HistoryAdmin):
    form = PriceForm
    list_display = ("plan", "unit", "model_name", "amount", "valid_from")
    list_select_related = ("plan",)
    list_filter = (("plan", RelatedDropdownFilter), "unit")
    search_fields = ("plan__name", "model")
    ordering = ("plan__name", "unit", "model", "-valid_from")
    history_list_display = ("amount", "valid_from")
    fields = ("plan", "unit", "model", "amount", "valid_from", "as_of")

    def save_model(
        self, request: HttpRequest, obj: Price, form: Any, change: bool
    ) -> None:
        super().save_model(request, obj, form, change)
        before = form.initial.get("valid_from") if change else None
        _warn_of_past_days(request, [obj.valid_from, before or obj.valid_from])

    def delete_model(self, request: HttpRequest, obj: Price) -> None:
        super().delete_model(request, obj)
        _warn_of_past_days(request, [obj.valid_from])

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[Price]) -> None:
        days = list(queryset.values_list("valid_from", flat=True))
        super().delete_queryset(request, queryset)
        _warn_of_past_days(request, days)

    @display(description="model", ordering="model")
    def model_name(self, price: Price) -> str:
        return price.model or "every model"


def _warn_of_past_days(request: HttpRequest, days: Iterable[datetime.date]) -> None:
    """Warn that a price was added, moved or deleted that is valid on past days."""
    if min(days) < timezone.now().date():
        messages.warning(
            request,
            "This price is valid on past days, so open months cost something else now."
            " Statements stay as they are.",
        )


@admin.register(LimitEvent)
class LimitEventAdmin(ReadOnlyAdmin):
    """The warnings that customers got."""

    list_display = ("at", "customer_name", "quota", "used_of", "notified_at")
    list_select_related = ("customer",)
    list_filter = (("customer", AutocompleteSelectFilter), "threshold_percent")
    search_fields = ("customer__name",)
    ordering = ("-at",)

    @display(description="customer", ordering="customer__name")
    def customer_name(self, event: LimitEvent) -> Any:
        return columns.customer_link(event.customer)

    @display(description="quota")
    def quota(self, event: LimitEvent) -> str:
        return f"{event.threshold_percent} % of {event.name}, {event.unit}"

    @display(description="used", ordering="used")
    def used_of(self, event: LimitEvent) -> str:
        return f"{event.used:,} of {event.limit:,}"


def this_month(customer: Customer, *, now: datetime.datetime) -> dict[str, Any] | None:
    """Price the month so far by version; None if no unit has a price."""
    lines = billing.lines_by_version(customer, month=now.date())
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
    """List the months since the customer was added, newest first."""
    month, first = now.date().replace(day=1), statements.first_month(customer)
    found = [month]
    while month > first and len(found) < _SHOWN_MONTHS:
        month = (month - datetime.timedelta(days=1)).replace(day=1)
        found.append(month)
    return found


class InvoicePages:
    """Mixin of the customers' admin: close months, download their lines."""

    def has_close_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("accounts.add_statement")

    @action(
        description="Invoice lines",
        icon="receipt_long",
        permissions=["export_usage"],
    )
    def export_invoice(
        self, request: HttpRequest, object_id: str
    ) -> HttpResponse | StreamingHttpResponse:
        """List the months, close or correct one, or download one: `?month=2026-11`."""
        customer = get_or_404(self, request, object_id)
        now = timezone.now()
        here = reverse("admin:accounts_customer_export_invoice", args=(customer.pk,))
        if request.method == "POST":
            self._close_or_correct(request, customer, now)
            return HttpResponseRedirect(here)
        if "month" in request.GET:
            return _month_response(customer, _month(request.GET["month"]), now)
        listed = months(customer, now=now)
        stated: dict[datetime.date, list[Statement]] = defaultdict(list)
        own = customer.statements.filter(month__in=listed).defer("lines")
        for statement in own.order_by("pk"):
            stated[statement.month].append(statement)
        return self._page(  # type: ignore[attr-defined,no-any-return]
            request,
            "accounts/invoice.html",
            title=f"Invoice lines of {customer}",
            customer=customer,
            months=[
                {
                    "first": month,
                    "statements": stated[month],
                    "total": billing.plain(statements.total(stated[month])),
                    "may_close": statements.may_close(month, now=now),
                }
                for month in listed
            ],
            may_close=self.has_close_permission(request),
            back_url=reverse("admin:accounts_customer_change", args=(customer.pk,)),
        )

    def _close_or_correct(
        self, request: HttpRequest, customer: Customer, now: datetime.datetime
    ) -> None:
        if not self.has_close_permission(request):
            raise PermissionDenied
        month = _month(request.POST.get("month", ""))
        by = cast(User, request.user)
        try:
            if "correct" in request.POST:
                closed = get_object_or_404(
                    Statement, customer=customer, month=month, corrects=None
                )
                reason = request.POST.get("reason", "")
                made = statements.correct(closed, reason=reason, by=by, now=now)
                what = f"Corrected {month:%B %Y} by {made.total}: statement {made}."
            else:
                made = statements.close(customer, month=month, by=by, now=now)
                what = f"Closed {month:%B %Y} by statement {made}: {made.total}."
        except ValidationError as error:
            messages.error(request, " ".join(error.messages))
            return
        self.log_change(request, customer, what)  # type: ignore[attr-defined]
        messages.success(request, what)


@admin.register(Statement)
class StatementAdmin(ReadOnlyAdmin):
    """Statements and their corrections, to read and to download."""

    list_display = (
        "number",
        "customer_name_now",
        "month_name",
        "kind",
        "total",
        "closed_at",
        "closed_by",
    )
    list_select_related = ("customer", "closed_by", "corrects")
    list_filter = (("customer", AutocompleteSelectFilter),)
    search_fields = ("=number", "customer_name")
    ordering = ("-number",)
    fields = (
        "number",
        "customer",
        "customer_name",
        "month",
        "corrects",
        "reason",
        "total",
        "closed_at",
        "closed_by_name",
    )
    actions_detail = ("download",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Statement]:
        found: QuerySet[Statement] = super().get_queryset(request)
        return found.defer("lines")

    @action(description="Download lines", icon="download", permissions=["view"])
    def download(self, request: HttpRequest, object_id: str) -> StreamingHttpResponse:
        return _statement_response(get_or_404(self, request, object_id))

    @display(description="closed by", empty_value="–")
    def closed_by_name(self, statement: Statement) -> str | None:
        return columns.name_of(statement.closed_by)

    @display(description="customer", ordering="customer__name")
    def customer_name_now(self, statement: Statement) -> Any:
        return columns.customer_link(statement.customer)

    @display(description="month", ordering="month")
    def month_name(self, statement: Statement) -> str:
        return f"{statement.month:%B %Y}"

    @display(description="kind")
    def kind(self, statement: Statement) -> str:
        if statement.corrects is None:
            return "month"
        return f"corrects {statement.corrects.number}"


def _month(asked: str) -> datetime.date:
    try:
        month = datetime.date.fromisoformat(f"{asked}-01")
    except ValueError as error:
        raise Http404 from error
    if month.year not in billing.YEARS:
        raise Http404
    return month


def _month_response(
    customer: Customer, month: datetime.date, now: datetime.datetime
) -> HttpResponse | StreamingHttpResponse:
    """Send a closed month as it was closed, or this month so far."""
    if month < statements.first_month(customer):
        raise Http404
    closed = statements.of_month(customer, month)
    if closed:
        return _statement_response(closed[0])
    if statements.may_close(month, now=now):
        text = f"{month:%B %Y} is not closed. Close it first, so that its lines stay."
        return HttpResponse(text, status=409, content_type="text/plain; charset=utf-8")
    lines = billing.lines(customer, month=month)
    return _csv(
        billing.csv_rows(lines, customer=customer.name),
        name=f"invoice-{customer.pk}-{month:%Y-%m}-so-far.csv",
    )


def _statement_response(statement: Statement) -> StreamingHttpResponse:
    month = f"{statement.month:%Y-%m}"
    return _csv(
        statements.csv_rows(statement),
        name=f"invoice-{statement.number}-{statement.customer_id}-{month}.csv",
    )


def _csv(rows: Iterable[tuple[Any, ...]], *, name: str) -> StreamingHttpResponse:
    return StreamingHttpResponse(
        write_lines(rows),
        content_type="text/csv; charset=utf-8",
        headers={"Content-Disposition": f'attachment; filename="{name}"'},
    )
