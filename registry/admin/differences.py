"""Show what callers would notice of a version, and ask why they may break."""

from dataclasses import dataclass
from typing import Any

from django import forms
from django.http import HttpRequest
from django.template.loader import render_to_string
from django.utils.safestring import SafeString
from unfold.widgets import UnfoldAdminIntegerFieldWidget, UnfoldAdminTextareaWidget

from registry import schema_gate
from registry.admin import columns
from registry.admin.dialogs import CanaryForm, NewTrafficForm, ReasonForm
from registry.models import ModelVersion, Route
from registry.rules import schema_changes
from registry.rules.schema_changes import Change
from registry.schema_gate import MOST_REASON, Override
from registry.signals import Callers

_COLOURS = {"same": "info", "additive": "success", "breaking": "danger"}


@dataclass(frozen=True, slots=True)
class Differences:
    """What a version changes for callers of a route's default."""

    version: ModelVersion
    published: ModelVersion
    changes: list[Change]
    # Asked for only if callers would break.
    callers: Callers | None = None
    # None: nobody is asked to override anything here.
    may_override: bool | None = None

    @property
    def breaks(self) -> bool:
        return schema_changes.level_of(self.changes) == "breaking"

    @property
    def rows(self) -> list[tuple[SafeString, str]]:
        """Return the label and the sentence of each, the gravest first."""
        order = ("breaking", "additive", "same")
        ordered = sorted(self.changes, key=lambda change: order.index(change.level))
        return [
            (columns.label(change.level, _COLOURS[change.level]), change.sentence)
            for change in ordered
        ]


def reason_field(
    *, required: bool, help_text: str = "The route's history keeps it."
) -> forms.CharField:
    return forms.CharField(
        label="Why callers may break",
        help_text=help_text,
        max_length=MOST_REASON,
        required=required,
        widget=UnfoldAdminTextareaWidget(attrs={"rows": 3}),
    )


class _AsksWhy(forms.Form):
    """Ask for a reason only where an override is needed and allowed."""

    differences: Differences | None = None

    def show(
        self, request: HttpRequest, route: Route | None, version: ModelVersion
    ) -> None:
        if route is None or route.default_version_id == version.pk:
            return
        published = route.default_version
        changes = schema_gate.changes_between(published, version)
        found = Differences(version, published, changes)
        if found.breaks:
            may = schema_gate.may_override(request.user)
            callers = schema_gate.callers_of(version, changes)
            found = Differences(version, published, changes, callers, may)
            if may:
                self.fields["override_reason"] = reason_field(required=True)
                # One reason is enough.
                del self.fields["why"]
        self.differences = found

    @property
    def override(self) -> Override | None:
        """Return the override that the person gave with a valid form."""
        reason = self.cleaned_data.get("override_reason", "")
        return Override(reason) if reason else None


class GatedForm(NewTrafficForm, ReasonForm, _AsksWhy):
    """Ask for confirmation that a version gets calls."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        found = self.get_before_template_context(self.request, self.object_id)
        self.show(self.request, found["route"], found["version"])

    def get_before_template_context(
        self, request: HttpRequest, object_id: int | str | None = None
    ) -> dict[str, Any]:
        context = super().get_before_template_context(request, object_id)
        return {**context, "differences": self.differences}


class StartCanaryForm(GatedForm):
    field_order = ("weight_percent",)
    weight_percent = forms.IntegerField(
        label="Weight in percent",
        help_text="Share of the model's requests, exact over every 100 of them.",
        min_value=0,
        max_value=100,
        initial=10,
        widget=UnfoldAdminIntegerFieldWidget,
    )


class PromoteCanaryForm(CanaryForm, _AsksWhy):
    """Ask for confirmation that the canary gets all calls."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.route.canary_version is not None:
            self.show(self.request, self.route, self.route.canary_version)

    def get_before_template_context(
        self, request: HttpRequest, object_id: int | str | None = None
    ) -> dict[str, Any]:
        context = super().get_before_template_context(request, object_id)
        return {**context, "differences": self.differences}


def told(version: ModelVersion) -> SafeString:
    """Render the differences of a version to the default of its route."""
    routes = Route.objects.select_related("default_version")
    route = routes.filter(registered_model=version.registered_model_id).first()
    if route is None:
        return SafeString("The model has no route yet.")
    if route.default_version_id == version.pk:
        return SafeString("It is the default.")
    changes = schema_gate.changes_between(route.default_version, version)
    found = Differences(version, route.default_version, changes)
    if found.breaks:
        callers = schema_gate.callers_of(version, changes)
        found = Differences(version, route.default_version, changes, callers)
    return SafeString(
        render_to_string("registry/differences.html", {"differences": found})
    )
