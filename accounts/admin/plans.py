"""Edit, retire and offer plans in the admin."""

import json
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.db.models import Count, QuerySet
from django.forms.fields import InvalidJSONInput
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from unfold.decorators import action, display
from unfold.widgets import UnfoldAdminTextareaWidget

from accounts.admin.history import GuardedForm, HistoryAdmin
from accounts.admin.lookup import get_or_404
from accounts.customers import changes
from accounts.models import Plan


class _QuotasField(forms.JSONField):
    """Refuse JSON that Python cannot read or show, or that says something twice.

    Python cannot read brackets that are too deep or a number that is too long, and
    cannot show half of a character.
    """

    def to_python(self, value: Any) -> Any:
        try:
            _refuse_doubles(value)
            return _shown(super().to_python(value))
        except (ValueError, RecursionError):
            raise forms.ValidationError(
                self.error_messages["invalid"], code="invalid", params={"value": value}
            ) from None

    def bound_data(self, data: Any, initial: Any) -> Any:
        try:
            _refuse_doubles(data)
            return _shown(super().bound_data(data, initial))
        except (ValueError, RecursionError, forms.ValidationError):
            # Shown again as it was typed; `to_python` has said what is wrong.
            return InvalidJSONInput(data)


def _refuse_doubles(typed: Any) -> None:
    """Raise ValidationError for a member that is there twice; Python keeps the last.

    Raise ValueError for what is not JSON.
    """

    def members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, value in pairs:
            if name in found:
                # Half of a character is escaped: pages cannot show it.
                written = json.dumps(name)
                raise forms.ValidationError(f"{written} is there more than once.")
            found[name] = value
        return found

    # Text that was read already is of another type, a `JSONString`.
    if type(typed) is str and typed:
        json.loads(typed, object_pairs_hook=members)


def _shown(value: Any) -> Any:
    """Return a value that pages can show; raise ValueError for another."""
    json.dumps(value, ensure_ascii=False).encode()
    return value


class PlanForm(GuardedForm):
    class Meta:
        model = Plan
        fields = ("further_quotas",)
        field_classes = {"further_quotas": _QuotasField}
        widgets = {"further_quotas": UnfoldAdminTextareaWidget}


@admin.register(Plan)
class PlanAdmin(HistoryAdmin):
    form = PlanForm
    list_display = ("name", "rates", "quotas", "rows", "customer_count", "state")
    list_filter = ("retired", "quota_unit")
    search_fields = ("name", "description")
    history_list_display = ("burst_requests", "sustained_requests", "retired")
    readonly_fields = ("state", "customer_count")
    actions_detail = ("retire", "offer_again")
    fieldsets = (
        (None, {"fields": ("name", "description", "state", "customer_count", "as_of")}),
        (
            "Rates",
            {"fields": (("burst_requests", "sustained_requests"), "max_concurrency")},
        ),
        (
            "Quotas",
            {
                "fields": (
                    "quota_unit",
                    ("daily_quota", "monthly_quota"),
                    "further_quotas",
                )
            },
        ),
        (
            "Sizes",
            {
                "fields": (
                    ("max_predict_rows", "max_batch_rows"),
                    "max_job_rows",
                    ("max_body_bytes", "max_jobs_in_flight"),
                    ("max_uploads", "max_upload_bytes"),
                )
            },
        ),
        ("Portal", {"fields": ("max_keys",)}),
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[Plan]:
        plans: QuerySet[Plan] = super().get_queryset(request)
        return plans.annotate(number_of_customers=Count("customers"))

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        if obj is not None:
            return self.fieldsets
        return ((None, {"fields": ("name", "description")}), *self.fieldsets[1:])

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        # A plan in use is retired instead.
        if obj is not None and obj.customers.exists():
            return False
        return bool(super().has_delete_permission(request, obj))

    def save_model(
        self, request: HttpRequest, obj: Plan, form: Any, change: bool
    ) -> None:
        changes.save(obj)

    def delete_model(self, request: HttpRequest, obj: Plan) -> None:
        changes.delete(obj)

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[Plan]) -> None:
        for plan in queryset:
            changes.delete(plan)

    @display(description="rates")
    def rates(self, plan: Plan) -> str:
        return f"{plan.burst_requests:,}/s, {plan.sustained_requests:,}/min"

    @display(description="quotas")
    def quotas(self, plan: Plan) -> str:
        parts = [
            f"{limit:,} {plan.quota_unit} a {name}"
            for name, limit in (
                ("day", plan.daily_quota),
                ("month", plan.monthly_quota),
            )
            if limit is not None
        ]
        return ", ".join(parts) or "none"

    @display(description="rows per request")
    def rows(self, plan: Plan) -> str:
        return f"{plan.max_predict_rows:,}, batch {plan.max_batch_rows:,}"

    @display(description="customers", ordering="number_of_customers")
    def customer_count(self, plan: Any) -> int:
        count: int = plan.number_of_customers
        return count

    @display(
        description="state",
        ordering="retired",
        label={"offered": "success", "retired": "warning"},
    )
    def state(self, plan: Plan) -> str:
        return "retired" if plan.retired else "offered"

    @action(
        description="Retire",
        icon="archive",
        permissions=["change"],
        dialog={
            "title": "Retire this plan?",
            "description": "It is no longer offered. Customers on it keep it.",
            "form_submit_text": "Retire",
        },
    )
    def retire(self, request: HttpRequest, form: Any, object_id: str) -> HttpResponse:
        return self._set_retired(request, object_id, retired=True)

    @action(
        description="Offer again",
        icon="unarchive",
        permissions=["change"],
        dialog={
            "title": "Offer this plan again?",
            "description": "It can be chosen for customers.",
            "form_submit_text": "Offer again",
        },
    )
    def offer_again(
        self, request: HttpRequest, form: Any, object_id: str
    ) -> HttpResponse:
        return self._set_retired(request, object_id, retired=False)

    def _set_retired(
        self, request: HttpRequest, object_id: str, *, retired: bool
    ) -> HttpResponse:
        plan = get_or_404(self, request, object_id)
        changes.set_retired(plan, retired=retired)
        messages.success(
            request, f"{plan} is {'retired' if retired else 'offered again'}."
        )
        return leave_dialog(
            request, reverse("admin:accounts_plan_change", args=(plan.pk,))
        )

    def get_actions_detail(self, request: HttpRequest, object_id: Any) -> list[Any]:
        """Offer either to retire the plan or to offer it again."""
        plan = self.get_object(request, object_id)
        hidden = "_retire" if plan is not None and plan.retired else "_offer_again"
        return [
            action
            for action in super().get_actions_detail(request, object_id)
            if not action.action_name.endswith(hidden)
        ]


def leave_dialog(request: HttpRequest, url: str) -> HttpResponse:
    """Go to `url` from a dialog; htmx would load a redirect into the dialog."""
    if "HX-Request" in request.headers:
        return HttpResponse(headers={"HX-Redirect": url})
    return HttpResponseRedirect(url)
