"""A form for a customer's overrides of its plan, with an input for each limit."""

import re
from collections.abc import Mapping
from typing import Any

from django import forms
from django.core.exceptions import ValidationError
from django.template.loader import render_to_string
from unfold.widgets import UnfoldAdminTextInputWidget

from accounts.admin.history import GuardedForm
from accounts.admission.overrides import FURTHER_QUOTAS, PERIODS, check_overrides
from accounts.models import Customer, Plan, QuotaUnit

# The path of each limit in the overrides, and its label.
LIMITS: dict[tuple[str, ...], str] = {
    ("burst_requests",): "Requests per second",
    ("sustained_requests",): "Requests per minute",
    ("max_concurrency",): "Requests in flight",
    ("daily_quota",): "Daily quota",
    ("monthly_quota",): "Monthly quota",
    ("max_predict_rows",): "Rows of a prediction",
    ("max_batch_rows",): "Rows of a batch",
    ("max_job_rows",): "Rows of a job",
    ("max_body_bytes",): "Bytes of a body",
    ("max_jobs_in_flight",): "Jobs in flight",
    ("max_uploads",): "Uploads kept",
    ("max_upload_bytes",): "Bytes of uploads kept",
    ("max_keys",): "Keys it may make",
} | {
    (FURTHER_QUOTAS, period, unit.value): f"{title} quota, {unit.label}"
    for period, title in zip(PERIODS, ("Daily", "Monthly"), strict=True)
    for unit in QuotaUnit
}
_NO_LIMIT = "none"
# Digits, with or without commas between groups of three; `1,5` does not match.
_NUMBER = re.compile(r"[0-9]+|[0-9]{1,3}(,[0-9]{3})*")
_AS_PLAN = object()


class _LimitField(forms.CharField):
    """A number, `none`, or empty for the plan's limit."""

    def __init__(self, path: tuple[str, ...]) -> None:
        super().__init__(required=False)
        self._path = path

    def clean(self, value: Any) -> Any:
        text = super().clean(value)
        if not text:
            return _AS_PLAN
        number = None if text.lower() == _NO_LIMIT else _number(text)
        try:
            check_overrides(_put({}, self._path, number))
        except ValueError as error:
            raise ValidationError(f"{LIMITS[self._path]}: {error}") from error
        return number


class LimitsWidget(forms.MultiWidget):
    """Show an input for each limit, with the plan's limit below it."""

    # Set by the form, if the customer has a plan.
    plan: Plan | None = None

    def __init__(self) -> None:
        super().__init__(
            {"_".join(path): UnfoldAdminTextInputWidget() for path in LIMITS}
        )

    def decompress(self, value: Any) -> list[str]:
        return [_text(value or {}, path) for path in LIMITS]

    def render(
        self, name: str, value: Any, attrs: Any = None, renderer: Any = None
    ) -> Any:
        inputs = self.get_context(name, value, attrs)["widget"]["subwidgets"]
        rows = [
            {
                "label": label,
                "id": given["attrs"].get("id", ""),
                "input": widget.render(
                    given["name"], given["value"], given["attrs"], renderer
                ),
                "plan": self._of_plan(path),
            }
            for (path, label), widget, given in zip(
                LIMITS.items(), self.widgets, inputs, strict=True
            )
            if given["value"] or not self._is_main(path)
        ]
        return render_to_string("accounts/limit_overrides.html", {"rows": rows})

    def _is_main(self, path: tuple[str, ...]) -> bool:
        """Return whether a further quota has the unit of the plan's main quotas."""
        unit = None if self.plan is None else self.plan.quota_unit
        return path[0] == FURTHER_QUOTAS and path[-1] == unit

    def _of_plan(self, path: tuple[str, ...]) -> str:
        if self.plan is None:
            return ""
        if path[0] == FURTHER_QUOTAS:
            value = self.plan.further_quotas.get(path[1], {}).get(path[2])
        else:
            value = getattr(self.plan, path[0])
        if value is None:
            return _NO_LIMIT
        is_quota = path[0].endswith("_quota")
        unit = f" {self.plan.get_quota_unit_display()}" if is_quota else ""
        return f"{value:,}{unit}"


class LimitsField(forms.MultiValueField):
    """Read all inputs into the value of `Customer.limit_overrides`."""

    def __init__(self) -> None:
        super().__init__(
            [_LimitField(path) for path in LIMITS],
            require_all_fields=False,
            required=False,
            widget=LimitsWidget(),
            label="Limits",
        )

    def compress(self, data_list: list[Any]) -> dict[str, Any]:
        own: dict[str, Any] = {}
        for path, value in zip(LIMITS, data_list, strict=bool(data_list)):
            if value is not _AS_PLAN:
                _put(own, path, value)
        return own


class CustomerForm(GuardedForm):
    limit_overrides = LimitsField()

    class Meta:
        model = Customer
        fields = ("limit_overrides",)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        field = self.fields.get("limit_overrides")
        if field is not None and self.instance.plan_id:
            field.widget.plan = self.instance.plan

    def clean_active(self) -> bool:
        active: bool = self.cleaned_data["active"]
        if active and self.instance.archived_at is not None:
            raise ValidationError("This customer is archived. Reopen it instead.")
        return active


def _number(text: str) -> int | str:
    """Read an integer, also `1,000`; return other text as it is, to be refused."""
    try:
        return int(text.replace(",", "")) if _NUMBER.fullmatch(text) else text
    except ValueError:  # more digits than Python reads
        return text


def _put(own: dict[str, Any], path: tuple[str, ...], value: Any) -> dict[str, Any]:
    place = own
    for name in path[:-1]:
        place = place.setdefault(name, {})
    place[path[-1]] = value
    return own


def _text(own: Mapping[str, Any], path: tuple[str, ...]) -> str:
    place: Any = own
    for name in path:
        if not isinstance(place, Mapping) or name not in place:
            return ""
        place = place[name]
    return _NO_LIMIT if place is None else str(place)
