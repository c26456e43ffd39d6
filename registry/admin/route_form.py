"""The admin form of a route, and its checks."""

from typing import Any

from django import forms
from unfold.widgets import (
    UnfoldAdminCheckboxSelectMultipleWidget,
    UnfoldAdminIntegerFieldWidget,
)

from registry import routes, schema_gate
from registry.admin.differences import reason_field
from registry.admin.json_field import JsonTextField
from registry.changes import Person
from registry.models import ModelVersion, Route
from registry.schema_gate import Override
from registry.shares import canaries
from registry.shares.canaries import Canary

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


def _weight(*, help_text: str = "") -> forms.IntegerField:
    return forms.IntegerField(
        min_value=0,
        max_value=100,
        required=False,
        help_text=help_text,
        widget=UnfoldAdminIntegerFieldWidget,
    )


class RouteForm(forms.ModelForm):  # type: ignore[type-arg]  # not generic at run time
    """Edit the weights of canaries; the default gets the rest."""

    canary_weight_percent = _weight(help_text="The default version gets the rest.")
    canary_2_weight_percent = _weight()
    canary_3_weight_percent = _weight()
    canary_4_weight_percent = _weight()
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
    override_reason = reason_field(
        required=False,
        help_text="Only if this page says that a version would break callers, and you "
        "want it all the same. The route's history keeps it.",
    )
    # Who edits, and what the history keeps of an override.
    person: Person = None
    override_note = ""
    # The state of the route when the person opened the form.
    as_of = _AsOf(required=False, widget=forms.HiddenInput)

    class Meta:
        model = Route
        fields = (
            "enabled",
            "default_version",
            *canaries.VERSIONS,
            *canaries.WEIGHTS,
            "shadow_version",
            "shadow_percent",
            "shadow_tolerance_percent",
            "keeps_examples",
            "sticky",
            "low_confidence_below",
            "input_rules",
            "batching",
            "replicas",
            "rollout_plan",
            "alias",
            "alias_follows",
            "alias_starts",
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
        for name in Route.VERSIONS:
            if name in self.fields:
                self.fields[name].queryset = own  # type: ignore[attr-defined]
        if not schema_gate.may_override(self.person):
            self.fields.pop("override_reason")
        for name in Route.VERSIONS[1:]:
            if name in self.fields:
                self.fields[name].empty_label = "none"  # type: ignore[attr-defined]
        self.initial["as_of"] = self.instance.updated_at.isoformat()

    def clean(self) -> dict[str, Any]:
        data: dict[str, Any] = super().clean() or {}
        places = self._clean_canaries(data)
        self._clean_shadow(data)
        follows = data.get("alias_follows", Route.AliasFollows.OFF)
        if follows != Route.AliasFollows.OFF and not data.get("alias"):
            self.add_error("alias", "Name the alias.")
        reason = data.get("override_reason", "")
        override = Override(reason) if reason else None
        # Set from the form only after this.
        published = self.instance.default_version
        # A canary that only moves to another place was accepted before.
        known = [canary.version for canary in self.instance.canaries]
        # A field that the form refused already needs no second reason.
        changed = [
            name
            for name in self.changed_data
            if name not in self.errors
            and not (name in canaries.VERSIONS and data[name] in known)
        ]
        notes = [
            schema_gate.note_of(published, data[name], override)
            for name in ("default_version", *canaries.VERSIONS, "shadow_version")
            if data.get(name) and name in changed
        ]
        self.override_note = "".join(dict.fromkeys(notes))
        for problem in routes.problems_of(
            default=data.get("default_version"),
            canaries={n: data[n] for n in canaries.VERSIONS if data.get(n)},
            shadow=data.get("shadow_version"),
            fallback=data.get("fallback_version"),
            fallback_on=data.get("fallback_on"),
            fallback_answer=data.get("fallback_answer"),
            changed=changed,
            input_rules=data.get("input_rules") or {},
            batching=data.get("batching") or {},
            published=published,
            by=self.person,
            override=override,
        ):
            self.add_error(problem.field, problem.sentence)
        if not self.errors:
            data |= places
        if data.get("as_of") and data["as_of"] != self.initial["as_of"]:
            # Saving the unchanged fields would undo that change.
            self.add_error(
                None,
                f"{self.instance.updated_by or 'Somebody'} has changed this route "
                "since you opened this page. Load the page again and repeat your "
                "change.",
            )
        return data

    def _clean_shadow(self, data: dict[str, Any]) -> None:
        """Require version and share together; without a version set the share to 0."""
        share = data.get("shadow_percent")
        if data.get("shadow_version"):
            if share == 0:
                self.add_error(
                    "shadow_percent", "Give the shadow a share from 1 to 100."
                )
            return
        # Who removes the shadow need not set its share to 0 as well.
        if share and "shadow_version" not in {*self.changed_data, *self.errors}:
            self.add_error("shadow_version", "Choose a version for this share.")
        data["shadow_percent"] = 0

    def _clean_canaries(self, data: dict[str, Any]) -> dict[str, Any]:
        """Check the weights together; return the canaries without empty places."""
        chosen = []
        for name, weight in zip(canaries.VERSIONS, canaries.WEIGHTS, strict=True):
            if data.get(name):
                chosen.append(Canary(data[name], data.get(weight) or 0))
            elif data.get(weight) and name not in {*self.changed_data, *self.errors}:
                self.add_error(name, "Choose a version for this weight.")
        # Set here, because the database's own check of the sum runs after this.
        values = canaries.columns(chosen)
        self.instance.default_weight_percent = values.pop("default_weight_percent")
        problem = routes.problem_of_weights(chosen)
        if problem and not self.errors:
            self.add_error(canaries.WEIGHTS[len(chosen) - 1], problem)
        return values
