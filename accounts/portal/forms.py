"""The forms of the portal."""

import datetime

from django import forms
from django.utils import timezone

from accounts.admission.limits import SCOPES
from accounts.customers import api_keys

_SCOPE_TEXTS = {
    "predict": "Predict: single and batch predictions",
    "explain": "Explain: why a prediction came out as it did",
    "jobs": "Jobs: submit, watch and cancel large predictions",
    "feedback": "Feedback: say how good answers were",
    "usage": "Usage: read this customer's usage",
    "models:read": "Models: list models and their signatures",
}
_MODES = (
    ("live", "Live: calls use up your quota and are billed"),
    ("test", "Test: the same answers and rates, and nothing is used up or billed"),
)
_LIFETIMES = (
    ("", "never"),
    ("30", "in 30 days"),
    ("90", "in 90 days"),
    ("365", "in a year"),
)
_OVERLAPS = (
    ("0", "at once"),
    ("1", "in an hour"),
    ("24", "in a day"),
    ("168", "in a week"),
    ("720", "in 30 days"),
)


class OwnKeyForm(forms.Form):
    name = forms.CharField(
        max_length=100,
        help_text="What will use it, for example “web shop”.",
        widget=forms.TextInput(attrs={"autocomplete": "off"}),
    )
    mode = forms.ChoiceField(
        label="What its calls are for",
        choices=_MODES,
        initial="live",
        widget=forms.RadioSelect,
        help_text="A test key begins with my_test_, a live one with my_live_.",
    )
    scopes = forms.MultipleChoiceField(
        label="What it may do",
        choices=[(scope, _SCOPE_TEXTS[scope]) for scope in SCOPES],
        initial=["predict", "explain", "models:read"],
        widget=forms.CheckboxSelectMultiple,
    )
    allowed_models = forms.CharField(
        label="Only for these models",
        required=False,
        help_text="Names, one per line. Empty: every model.",
        widget=forms.Textarea(attrs={"rows": 2, "spellcheck": "false"}),
    )
    lifetime_days = forms.ChoiceField(
        label="It expires", choices=_LIFETIMES, required=False
    )

    def clean_allowed_models(self) -> list[str]:
        return api_keys.read_models(self.cleaned_data["allowed_models"])

    @property
    def expires_at(self) -> datetime.datetime | None:
        days: str = self.cleaned_data["lifetime_days"]
        return timezone.now() + datetime.timedelta(days=int(days)) if days else None


class OwnRotateForm(forms.Form):
    overlap_hours = forms.ChoiceField(
        label="The old key stops working", choices=_OVERLAPS, initial="24"
    )

    @property
    def overlap(self) -> datetime.timedelta:
        return datetime.timedelta(hours=int(self.cleaned_data["overlap_hours"]))


class RefusalSearchForm(forms.Form):
    q = forms.CharField(
        label="Request id",
        required=False,
        max_length=128,
        widget=forms.TextInput(
            attrs={
                "type": "search",
                "placeholder": "req_…",
                "autocomplete": "off",
                "spellcheck": "false",
            }
        ),
    )


class ForgottenForm(forms.Form):
    email = forms.EmailField(
        label="E-mail address",
        max_length=254,
        widget=forms.EmailInput(attrs={"autocomplete": "email"}),
    )
