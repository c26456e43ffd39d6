"""Forms for API keys in the admin."""

from typing import Any

from django import forms
from django.utils import timezone
from unfold.widgets import (
    UnfoldAdminCheckboxSelectMultipleWidget,
    UnfoldAdminIntegerFieldWidget,
    UnfoldAdminTextareaWidget,
)

from accounts.admin.history import GuardedForm
from accounts.admission.limits import SCOPES
from accounts.admission.networks import normalised
from accounts.customers.api_keys import LIMIT_FIELDS, read_lines, read_models
from accounts.models import ApiKey, Customer

_SCOPE_TEXTS = {
    "predict": "predict: single and batch predictions",
    "explain": "explain: SHAP explanations",
    "jobs": "jobs: submit, watch and cancel jobs",
    "feedback": "feedback: say how good answers were",
    "usage": "usage: read the customer's usage",
    "models:read": "models:read: list models and their signatures",
}
_MAX_OVERLAP_HOURS = 30 * 24


class KeyForm(GuardedForm):
    """Choose what a key may do, for which models and for how long."""

    scopes = forms.MultipleChoiceField(
        choices=[(scope, _SCOPE_TEXTS[scope]) for scope in SCOPES],
        initial=list(SCOPES),
        widget=UnfoldAdminCheckboxSelectMultipleWidget,
    )
    allowed_models = forms.CharField(
        required=False,
        widget=UnfoldAdminTextareaWidget(attrs={"rows": 3}),
        help_text="Names of the models it may call, one per line. Empty: every model.",
    )
    allowed_networks = forms.CharField(
        required=False,
        widget=UnfoldAdminTextareaWidget(attrs={"rows": 2}),
        help_text="IPv4 and IPv6 networks, one per line, e.g. 203.0.113.0/24."
        " Empty: anywhere.",
    )

    class Meta:
        model = ApiKey
        fields = (
            "customer",
            "name",
            "mode",
            "scopes",
            "allowed_models",
            "allowed_networks",
            "expires_at",
            *LIMIT_FIELDS,
        )
        help_texts = {
            "mode": "Test: the same answers and rates, and nothing is charged.",
        }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.instance.pk:
            for name in ("allowed_models", "allowed_networks"):
                self.initial[name] = "\n".join(getattr(self.instance, name))

    def clean_allowed_models(self) -> list[str]:
        kept = self.instance.allowed_models if self.instance.pk else ()
        return read_models(self.cleaned_data["allowed_models"], kept=kept)

    def clean_allowed_networks(self) -> list[str]:
        text: str = self.cleaned_data["allowed_networks"]
        try:
            return [normalised(line) for line in read_lines(text)]
        except ValueError as error:
            raise forms.ValidationError(str(error)) from error

    def clean_customer(self) -> Customer:
        customer: Customer = self.cleaned_data["customer"]
        if customer.archived_at is not None:
            raise forms.ValidationError(f"{customer} is archived. Reopen it first.")
        return customer

    def clean_expires_at(self) -> Any:
        expires_at = self.cleaned_data["expires_at"]
        unchanged = expires_at == self.initial.get("expires_at")
        if expires_at is not None and not unchanged and expires_at <= timezone.now():
            raise forms.ValidationError("The expiry must lie in the future.")
        return expires_at


class RotateForm(forms.Form):
    overlap_hours = forms.IntegerField(
        label="Hours the old key stays valid",
        help_text="Time for its users to change keys. 0 ends it at once.",
        min_value=0,
        max_value=_MAX_OVERLAP_HOURS,
        initial=24,
        widget=UnfoldAdminIntegerFieldWidget,
    )
