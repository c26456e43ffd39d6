"""The admin form of a route, and its checks."""

from typing import Any

from django import forms
from unfold.widgets import (
    UnfoldAdminCheckboxSelectMultipleWidget,
    UnfoldAdminIntegerFieldWidget,
)

from registry import routes
from registry.admin.json_field import JsonTextField
from registry.models import ModelVersion, Route

_FALLBACK_ON = (
    ("OVERLOADED", "OVERLOADED: too much waits for the version"),
    ("MODEL_UNAVAILABLE", "MODEL_UNAVAILABLE: it is not loaded, or its engine is away"),
    ("INFERENCE_TIMEOUT", "INFERENCE_TIMEOUT: it took longer than the deadline"),
    ("MODEL_ERROR", "MODEL_ERROR: the model itself failed"),
)


class _AsOf(forms.CharField):
    def has_changed(self, initial: Any, data: Any) -> bool:
        # People do not edit this field.
        return False


class RouteForm(forms.ModelForm):  # type: ignore[type-arg]  # not generic at run time
    """Edit the canary's weight; the default gets the rest."""

    canary_weight_percent = forms.IntegerField(
        min_value=0,
        max_value=100,
        help_text="The default version gets the rest.",
        widget=UnfoldAdminIntegerFieldWidget,
    )
    input_rules = JsonTextField(
        nothing={},
        example={"worst area": {"min": 0, "max": 5000}},
        help_text='By column: min, max, enum, max_length, "optional": false. What is '
        "set here replaces the model's own. Empty: the model's own.",
    )
    batching = JsonTextField(
        nothing={},
        example={"max_wait_ms": 2, "max_batch_rows": 64, "max_batch_bytes": 1000000},
        help_text="How batches form, within the engine's bounds; takes effect within "
        "seconds and loads nothing again. Empty: the model's own.",
    )
    fallback_answer = JsonTextField(
        nothing=None,
        example={"label": "unknown"},
        help_text="Given as the prediction of every instance when no version can "
        "answer: in /v2 as tensors, in a stream as its chunk. Not charged. Empty: "
        "none, callers get the error.",
    )
    fallback_on = forms.MultipleChoiceField(
        choices=_FALLBACK_ON,
        widget=UnfoldAdminCheckboxSelectMultipleWidget,
        help_text="The errors that the fallback stands in for.",
        error_messages={"required": "Choose at least one error."},
    )
    # The state of the route when the person opened the form.
    as_of = _AsOf(required=False, widget=forms.HiddenInput)

    class Meta:
        model = Route
        fields = (
            "enabled",
            "default_version",
            "canary_version",
            "canary_weight_percent",
            "low_confidence_below",
            "input_rules",
            "batching",
            "replicas",
            "cache_ttl_s",
            "cache_scope",
            "fallback_version",
            "fallback_answer",
            "fallback_on",
        )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        own = ModelVersion.objects.filter(
            registered_model=self.instance.registered_model_id
        ).select_related("registered_model")
        for name in ("default_version", "canary_version", "fallback_version"):
            if name in self.fields:
                self.fields[name].queryset = own  # type: ignore[attr-defined]
        for name in ("canary_version", "fallback_version"):
            if name in self.fields:
                self.fields[name].empty_label = "none"  # type: ignore[attr-defined]
        self.initial["as_of"] = self.instance.updated_at.isoformat()

    def clean(self) -> dict[str, Any]:
        data: dict[str, Any] = super().clean() or {}
        if not data.get("canary_version"):
            if data.get("canary_weight_percent") and "canary_version" not in {
                *self.changed_data,
                *self.errors,
            }:
                self.add_error("canary_version", "Choose a version for this weight.")
            data["canary_weight_percent"] = 0
        weight = data.get("canary_weight_percent")
        if weight is not None:
            # Set here, because the database's own check of the sum runs after this.
            self.instance.default_weight_percent = 100 - weight
        for problem in routes.problems_of(
            default=data.get("default_version"),
            canary=data.get("canary_version"),
            fallback=data.get("fallback_version"),
            fallback_on=data.get("fallback_on"),
            fallback_answer=data.get("fallback_answer"),
            # A field that the form refused already needs no second reason.
            changed=[name for name in self.changed_data if name not in self.errors],
            input_rules=data.get("input_rules") or {},
            batching=data.get("batching") or {},
        ):
            self.add_error(problem.field, problem.sentence)
        if data.get("as_of") and data["as_of"] != self.initial["as_of"]:
            # Saving the unchanged fields would undo that change.
            self.add_error(
                None,
                f"{self.instance.updated_by or 'Somebody'} has changed this route "
                "since you opened this page. Load the page again and repeat your "
                "change.",
            )
        return data
