"""Admin pages of rollouts: watch one, and move it by hand."""

from collections.abc import Callable
from functools import partial
from typing import Any

from django import forms
from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from unfold.admin import ModelAdmin
from unfold.decorators import action, display
from unfold.enums import ActionVariant
from unfold.forms import BaseDialogForm
from unfold.widgets import UnfoldAdminSelectWidget

from inference.admin.read_only import ReadOnly
from inference.admin.rollouts.report import report_on
from inference.controller.rollouts import conduct
from inference.models import Rollout
from registry.admin import columns
from registry.admin.dialogs import answer, dialog
from registry.admin.differences import GatedForm
from registry.admin.lookup import get_or_404
from registry.models import RolloutPlan

State = Rollout.State
MOVE_ROUTE = ["move_route"]
_COLOURS = {
    State.WAITING.value: "info",
    State.RUNNING.value: "info",
    State.PAUSED.value: "warning",
    State.APPROVAL.value: "warning",
    State.PROMOTED.value: "success",
    State.ROLLED_BACK.value: "danger",
}


class StartRolloutForm(GatedForm):
    """Choose the plan of a new rollout."""

    field_order = ("plan",)

    plan = forms.ModelChoiceField(
        RolloutPlan.objects.all(),
        required=False,
        empty_label="the route's plan, or the usual one",
        widget=UnfoldAdminSelectWidget,
        help_text="The usual plan gives the version 1, 5, 25 and then 50 % of the "
        "calls. It rolls back by itself if the version fails, or is slow, more than "
        "1.2 times as often as the default, and errs with that in at most 1 % of "
        "rollouts. It pauses if the version's predictions are distributed otherwise "
        "in more than 10 % of calls. It makes the version the default once the numbers "
        "show that it is safe.",
    )


class StageSeenForm(BaseDialogForm):  # type: ignore[misc]  # unfold is untyped
    """Ask for confirmation about the stage that is shown, not about a later one."""

    stage = forms.IntegerField(required=False, widget=forms.HiddenInput)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        rollout = Rollout.objects.filter(pk=self.object_id).first()
        if rollout is not None:
            self.fields["stage"].initial = rollout.stage


@admin.register(Rollout)
class RolloutAdmin(ReadOnly, ModelAdmin):  # type: ignore[misc]  # unfold is untyped
    list_display = (
        "title",
        "state_label",
        "place",
        "why",
        "started_at",
        "started_by_name",
    )
    list_select_related = ("registered_model", "version", "started_by")
    list_filter = ("state",)
    search_fields = ("registered_model__name",)
    ordering = ("-started_at", "-pk")
    list_per_page = 50
    show_full_result_count = False
    fields = ("title", "started_at", "started_by_name", "ended_at")
    readonly_fields = fields
    actions_detail = ("promote", "advance", "pause", "resume", "roll_back")
    change_form_outer_before_template = "inference/rollout.html"
    list_before_template = "inference/rollouts_note.html"

    def get_queryset(self, request: HttpRequest) -> Any:
        # They may be large, and only a rollout's own page shows them.
        return super().get_queryset(request).defer("sums")

    def has_move_route_permission(self, request: HttpRequest, *_: Any) -> bool:
        return request.user.has_perm("registry.change_route")

    @display(description="Rollout", ordering="registered_model__name")
    def title(self, rollout: Rollout) -> SafeString:
        return format_html(
            '<span style="overflow-wrap: anywhere">{} v{}</span>',
            rollout.registered_model.name,
            rollout.version.version,
        )

    @display(description="State", ordering="state")
    def state_label(self, rollout: Rollout) -> SafeString:
        return state_label(rollout)

    @display(description="Stage")
    def place(self, rollout: Rollout) -> str:
        stages = len(rollout.plan["stages"])
        weight = f"{rollout.weight_percent}\N{NO-BREAK SPACE}%"
        return f"{rollout.stage + 1} of {stages}, {weight}"

    @display(description="Why", empty_value="–")
    def why(self, rollout: Rollout) -> SafeString | None:
        return columns.folded(rollout.reason) if rollout.reason else None

    @display(description="Started by", empty_value="–")
    def started_by_name(self, rollout: Rollout) -> str | None:
        return None if rollout.started_by is None else str(rollout.started_by)

    def change_view(
        self,
        request: HttpRequest,
        object_id: str,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        context = dict(extra_context or {})
        rollout = self.get_object(request, object_id)
        if rollout is not None:
            drawn = f"{rollout.state} {rollout.stage}"
            if request.GET.get("drawn", drawn) != drawn:
                # Its buttons, which stand elsewhere, are others now.
                return HttpResponse(headers={"HX-Refresh": "true"})
            context |= {
                "rollout": rollout,
                "drawn": drawn,
                "state_label": state_label(rollout),
                "report": report_on(rollout),
                "events": rollout.events.select_related("by")[:100],
            }
        response: HttpResponse = super().change_view(
            request, object_id, form_url, context
        )
        return response

    def get_actions_detail(self, request: HttpRequest, object_id: Any) -> list[Any]:
        """Offer what the rollout's state allows."""
        actions: list[Any] = super().get_actions_detail(request, object_id)
        rollout = self.get_object(request, object_id)
        if rollout is None:
            return []
        offered = {
            name
            for name, among in conduct.POSSIBLE_IN.items()
            if rollout.state in among
        }
        if rollout.stage + 1 >= len(rollout.plan["stages"]):
            offered.discard("advance")
        return [
            each for each in actions if each.method.original_function_name in offered
        ]

    @action(
        description="Promote",
        icon="star",
        permissions=MOVE_ROUTE,
        variant=ActionVariant.PRIMARY,
        dialog=dialog(
            "Make the canary the default now?",
            text="It gets the default's calls, whatever the evidence says so far.",
            submit="Promote",
        ),
    )
    def promote(
        self, request: HttpRequest, form: forms.Form, object_id: str
    ) -> HttpResponse:
        return self._do(request, object_id, conduct.promote, "It is the default now.")

    @action(
        description="Advance",
        icon="skip_next",
        permissions=MOVE_ROUTE,
        dialog=dialog(
            "Go to the next stage now?",
            text="If it is paused, the test that paused it begins again; after drift, "
            "you accept its predictions.",
            submit="Advance",
            form=StageSeenForm,
        ),
    )
    def advance(
        self, request: HttpRequest, form: StageSeenForm, object_id: str
    ) -> HttpResponse:
        seen = form.cleaned_data["stage"]
        return self._do(
            request,
            object_id,
            partial(conduct.advance, seen_stage=seen),
            "The next stage begins once gateways serve its weight.",
        )

    @action(
        description="Pause",
        icon="pause",
        permissions=MOVE_ROUTE,
        dialog=dialog(
            "Keep the weight as it is?",
            text="A paused rollout neither goes on nor rolls back by itself.",
            submit="Pause",
        ),
    )
    def pause(
        self, request: HttpRequest, form: forms.Form, object_id: str
    ) -> HttpResponse:
        return self._do(
            request,
            object_id,
            partial(conduct.pause, reason="Paused by hand."),
            "It is paused.",
        )

    @action(
        description="Resume",
        icon="play_arrow",
        permissions=MOVE_ROUTE,
        variant=ActionVariant.PRIMARY,
        dialog=dialog(
            "Go on with this stage?",
            text="Its time and its calls count from now. The test that paused it "
            "begins again; after drift, you accept its predictions. After a change of "
            "the default, all evidence begins again.",
            submit="Resume",
        ),
    )
    def resume(
        self, request: HttpRequest, form: forms.Form, object_id: str
    ) -> HttpResponse:
        return self._do(request, object_id, conduct.resume, "It goes on.")

    @action(
        description="Roll back",
        icon="undo",
        permissions=MOVE_ROUTE,
        variant=ActionVariant.DANGER,
        dialog=dialog(
            "Send its calls to the default again?",
            text="The rollout ends. Another one can be started later.",
            submit="Roll back",
        ),
    )
    def roll_back(
        self, request: HttpRequest, form: forms.Form, object_id: str
    ) -> HttpResponse:
        return self._do(
            request, object_id, conduct.roll_back, "The default gets its calls."
        )

    def _do(
        self,
        request: HttpRequest,
        object_id: str,
        change: Callable[..., None],
        done: str,
    ) -> HttpResponse:
        rollout = get_or_404(self, request, object_id)
        return answer(
            request,
            lambda: change(rollout, by=request.user),
            done=done,
            otherwise=reverse("admin:inference_rollout_change", args=[rollout.pk]),
        )


def state_label(rollout: Rollout) -> SafeString:
    return columns.label(rollout.get_state_display(), _COLOURS[rollout.state])
