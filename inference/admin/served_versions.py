"""Extend the registry's pages of versions with how engines serve them."""

from typing import Any

from django import forms
from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from django.utils import timezone
from django.utils.safestring import SafeString
from unfold.decorators import action, display
from unfold.forms import BaseDialogForm

from inference.admin import state_labels
from inference.admin.version_report import report_on
from inference.conditions import requests
from inference.conditions.reading import VersionStates
from inference.conditions.states import ServingState, StateReport
from registry.admin import ModelVersionAdmin
from registry.admin.dialogs import dialog
from registry.admin.lookup import require_key
from registry.admin.versions import CHANGE_ROUTE
from registry.models import ModelVersion

# Trying again may help these; a reason says that one process of several failed.
_RETRIED = (ServingState.FAILED, ServingState.WAITING, ServingState.MISFIT)


class ReleaseForm(BaseDialogForm):  # type: ignore[misc]  # unfold is untyped
    """Ask for confirmation about the quarantine that is shown, not a later one."""

    form_before_template = "inference/quarantine.html"
    quarantined_at = forms.CharField(required=False, widget=forms.HiddenInput)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        require_key(ModelVersion, str(self.object_id))
        versions = ModelVersion.objects.select_related("registered_model")
        version = get_object_or_404(versions, pk=str(self.object_id))
        self._condition = requests.quarantine_of(version)
        if self._condition is not None and self._condition.quarantined_at:
            began_at = self._condition.quarantined_at.isoformat()
            self.fields["quarantined_at"].initial = began_at

    def get_before_template_context(
        self, request: HttpRequest, object_id: int | str | None = None
    ) -> dict[str, Any]:
        return {"condition": self._condition}


admin.site.unregister(ModelVersion)


@admin.register(ModelVersion)
class ServedVersionAdmin(ModelVersionAdmin):
    """The registry knows no engines, so their part of its pages is added here."""

    list_display = (
        "title",
        "serving_state",
        *(
            name
            for name in ModelVersionAdmin.list_display
            # The state says so where it matters.
            if name not in ("title", "artifact")
        ),
    )
    actions_detail = ("load_again", "release", *ModelVersionAdmin.actions_detail)
    change_form_outer_before_template = "inference/version_serving.html"
    change_form_outer_after_template = "inference/version_events.html"

    def get_changelist_instance(self, request: HttpRequest) -> Any:
        changelist = super().get_changelist_instance(request)
        # Evaluated here: the page shows the same rows, with their states.
        changelist.result_list = list(changelist.result_list)
        state_labels.with_states(changelist.result_list)
        return changelist

    @display(description="state")
    def serving_state(self, version: Any) -> SafeString:
        return state_labels.label_and_why(version, version.state_report)

    def change_view(
        self,
        request: HttpRequest,
        object_id: str,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        version = self.get_object(request, object_id)
        context = dict(extra_context or {})
        may = request.user.has_perm
        if version is not None and may("inference.view_loadedversion"):
            state = self._state_of(request, version)
            with_events = may("inference.view_versionevent")
            context |= {
                "serving": report_on(version, state=state, with_events=with_events),
                "state_label": state_labels.label(state),
                "with_events": with_events,
            }
        response: HttpResponse = super().change_view(
            request, object_id, form_url, context
        )
        return response

    def get_actions_detail(self, request: HttpRequest, object_id: Any) -> list[Any]:
        """Offer to load again and to release only where it can help."""
        actions: list[Any] = super().get_actions_detail(request, object_id)
        version = self.get_object(request, object_id)
        if version is None:
            return actions
        report = self._state_of(request, version)
        hidden = set()
        if report.state is not ServingState.QUARANTINED:
            hidden.add("release")
        if report.state is ServingState.QUARANTINED or (
            report.state not in _RETRIED and not report.reason
        ):
            hidden.add("load_again")
        return [
            each for each in actions if each.method.original_function_name not in hidden
        ]

    def _state_of(self, request: Any, version: ModelVersion) -> StateReport:
        """Return the version's state, which a page asks for twice."""
        found: StateReport | None = getattr(request, "state_of_version", None)
        if found is None:
            found = VersionStates([version.registered_model.name]).of(version)
            request.state_of_version = found
        return found

    @action(
        description="Load again",
        icon="refresh",
        permissions=CHANGE_ROUTE,
        dialog=dialog(
            "Try to load this version again now?",
            text="Engines that failed to load it do not wait for their next try.",
            submit="Load again",
        ),
    )
    def load_again(
        self, request: HttpRequest, form: forms.Form, object_id: str
    ) -> HttpResponse:
        return self._do(
            request,
            object_id,
            lambda version: requests.load_again(
                version, by=request.user, now=timezone.now()
            ),
            "Engines load {} again now; its state shows how it goes.",
        )

    @action(
        description="Release",
        icon="lock_open",
        permissions=CHANGE_ROUTE,
        dialog=dialog(
            "Release this version from quarantine?",
            submit="Release",
            form=ReleaseForm,
        ),
    )
    def release(
        self, request: HttpRequest, form: ReleaseForm, object_id: str
    ) -> HttpResponse:
        seen = form.cleaned_data["quarantined_at"]
        return self._do(
            request,
            object_id,
            lambda version: requests.release(
                version, by=request.user, now=timezone.now(), seen=seen
            ),
            "{} was released; it answers again once it is loaded.",
        )
