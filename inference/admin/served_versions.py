"""Extend the registry's pages of versions with how engines serve them."""

from typing import Any

from django import forms
from django.contrib import admin, messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from django.urls import URLPattern, path, reverse
from django.utils import timezone
from django.utils.safestring import SafeString
from unfold.decorators import action, display
from unfold.enums import ActionVariant
from unfold.forms import BaseDialogForm

from accounts.customers import personal_keys
from inference.admin import state_labels, version_events
from inference.admin.cards import version_card
from inference.admin.following.buttons import AskForTrust, may_ask
from inference.admin.rollouts.pages import StartRolloutForm
from inference.admin.trying import pages as trying
from inference.admin.version_report import report_on
from inference.conditions import requests
from inference.conditions.reading import VersionStates
from inference.conditions.states import ServingState, StateReport
from inference.controller.rollouts import conduct
from inference.following import trust
from registry.admin import ModelVersionAdmin
from registry.admin.dialogs import dialog, go_back, go_to
from registry.admin.lookup import get_or_404, require_key
from registry.admin.versions import CHANGE_ROUTE
from registry.models import ModelVersion
from registry.routes import RouteError

# Trying again may help these; a reason says that one process of several failed.
_RETRIED = (
    *(ServingState.FAILED, ServingState.MISFIT),
    *(ServingState.WAITING, ServingState.NO_MEMORY),
)


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
class ServedVersionAdmin(AskForTrust, ModelVersionAdmin):
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
    actions_row = ("start_rollout", *ModelVersionAdmin.actions_row)
    actions_detail = (
        "try_it",
        "start_rollout",
        "ask_for_trust",
        "load_again",
        "release",
        *ModelVersionAdmin.actions_detail,
    )
    change_form_outer_before_template = "inference/version_serving.html"
    change_form_outer_after_template = "inference/version_events.html"

    def get_urls(self) -> list[URLPattern]:
        own = [
            path(
                "<path:object_id>/try/",
                self.admin_site.admin_view(self.try_view),
                name="registry_modelversion_try",
            ),
            path(
                "<path:object_id>/try/rows",
                self.admin_site.admin_view(self.try_rows_view),
                name="registry_modelversion_try_rows",
            ),
        ]
        return [*own, *super().get_urls()]

    def try_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        version = get_or_404(self, request, object_id)
        return trying.page(request, version, site=self.admin_site)

    def try_rows_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        return trying.read_rows(request, get_or_404(self, request, object_id))

    def has_try_permission(self, request: HttpRequest, *_: Any) -> bool:
        return personal_keys.may_hold(request.user)

    @action(
        description="Try it",
        icon="experiment",
        permissions=["try"],
        variant=ActionVariant.PRIMARY,
    )
    def try_it(self, request: HttpRequest, object_id: str) -> HttpResponse:
        return go_to(request, trying.url_of(get_or_404(self, request, object_id)))

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
        if version is not None and may("inference.view_rollout"):
            context["rollouts"] = version.rollouts.listed()
        if version is not None:
            context["card"] = version_card.of(version)
        if version is not None and may("inference.view_loadedversion"):
            state = self._state_of(request, version)
            with_events = may("inference.view_versionevent")
            context |= {
                "serving": report_on(version, state=state, with_events=with_events),
                "state_label": state_labels.label(state),
                "with_events": with_events,
                "trust_request": trust.request_of(version.registered_model),
                "events_url": version_events.list_url(version),
            }
        response: HttpResponse = super().change_view(
            request, object_id, form_url, context
        )
        return response

    def get_actions_detail(self, request: HttpRequest, object_id: Any) -> list[Any]:
        """Offer what can help: a header of fewer buttons has room for the name."""
        actions: list[Any] = super().get_actions_detail(request, object_id)
        version = self.get_object(request, object_id)
        if version is None:
            return actions
        report = self._state_of(request, version)
        route = getattr(version.registered_model, "route", None)
        is_canary = route is not None and route.weight_of(version.pk) is not None
        hidden = set() if is_canary else {"stop_canary"}
        if route is not None and route.default_version_id == version.pk:
            hidden |= {"make_default", "start_canary", "start_rollout"}
        if report.state is not ServingState.QUARANTINED:
            hidden.add("release")
        if not may_ask(version.registered_model, request.user):
            hidden.add("ask_for_trust")
        if report.state in (ServingState.QUARANTINED, ServingState.UNTRUSTED) or (
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
        description="Start rollout",
        icon="rocket_launch",
        permissions=CHANGE_ROUTE,
        variant=ActionVariant.PRIMARY,
        dialog=dialog(
            "Roll this version out step by step?",
            submit="Start rollout",
            form=StartRolloutForm,
        ),
    )
    def start_rollout(
        self, request: HttpRequest, form: StartRolloutForm, object_id: str
    ) -> HttpResponse:
        version = get_or_404(self, request, object_id)
        try:
            named = form.cleaned_data["plan"]
            plan = None if named is None else conduct.plan_named(named)
            rollout = conduct.start(
                version,
                by=request.user,
                plan=plan,
                override=form.override,
                why=form.reason,
            )
        except RouteError as error:
            messages.error(request, str(error))
            page = reverse("admin:registry_modelversion_change", args=[version.pk])
            return go_back(request, otherwise=page)
        self.log_change(request, version, f"The rollout of {version} began.")
        return go_to(
            request, reverse("admin:inference_rollout_change", args=[rollout.pk])
        )

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
