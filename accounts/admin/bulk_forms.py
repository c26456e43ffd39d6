"""Forms for issuing many keys and importing many customers."""

from typing import Any

from django import forms
from unfold.widgets import (
    UnfoldAdminCheckboxSelectMultipleWidget,
    UnfoldAdminFileFieldWidget,
    UnfoldAdminIntegerFieldWidget,
    UnfoldAdminRadioSelectWidget,
    UnfoldAdminTextareaWidget,
    UnfoldAdminTextInputWidget,
)

from accounts.admission.limits import SCOPES
from accounts.customers import bulk_keys, csv_import


class ManyKeysForm(forms.Form):
    """Names of the keys, or how many; and what all of them may do."""

    names = forms.CharField(
        required=False,
        widget=UnfoldAdminTextareaWidget(attrs={"rows": 6}),
        help_text="One name per line, or CSV with the names in its first column.",
    )
    count = forms.IntegerField(
        label="Or how many",
        required=False,
        min_value=1,
        max_value=bulk_keys.MOST,
        widget=UnfoldAdminIntegerFieldWidget,
        help_text="Numbered keys: key 1, key 2, …",
    )
    name_prefix = forms.CharField(
        label="Their names begin with",
        initial="key",
        required=False,
        max_length=80,
        widget=UnfoldAdminTextInputWidget,
    )
    mode = forms.ChoiceField(
        choices=[
            ("live", "live"),
            ("test", "test: the same answers and rates, and nothing is charged"),
        ],
        initial="live",
        widget=UnfoldAdminRadioSelectWidget,
    )
    scopes = forms.MultipleChoiceField(
        choices=[(scope, scope) for scope in SCOPES],
        initial=list(SCOPES),
        widget=UnfoldAdminCheckboxSelectMultipleWidget,
    )

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or {}
        text, count = cleaned.get("names", ""), cleaned.get("count")
        if bool(text.strip()) == bool(count) and not self.errors:
            raise forms.ValidationError("Give either names or how many.")
        if not self.errors:
            prefix = cleaned["name_prefix"] or "key"
            cleaned["key_names"] = (
                bulk_keys.number_names(prefix, count)
                if count
                else bulk_keys.read_names(text)
            )
        return cleaned


class CustomerFileForm(forms.Form):
    file = forms.FileField(
        label="CSV file",
        widget=UnfoldAdminFileFieldWidget,
        help_text="UTF-8. The first line names the columns: name and plan, optionally"
        " contact_email and notes. Nothing is changed before you confirm.",
    )

    def clean_file(self) -> str:
        upload = self.cleaned_data["file"]
        return csv_import.decode(upload.read(csv_import.LARGEST_BYTES + 1))
