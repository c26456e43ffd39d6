"""Admin pages of the plans by which canaries become defaults."""

from typing import Any

from django import forms
from django.contrib import admin
from django.http import HttpRequest
from unfold.decorators import display

from registry.admin.history import HistoryAdmin
from registry.admin.json_field import JsonTextField
from registry.models import RolloutPlan
from registry.rules import rollout_plans


class RolloutPlanForm(forms.ModelForm):  # type: ignore[type-arg]  # not generic at run time
    plan = JsonTextField(
        nothing={},
        example={
            "stages": [
                {"weight_percent": 5, "least_minutes": 10, "least_calls": 100},
                {"weight_percent": 50, "least_minutes": 30, "least_calls": 500},
            ],
            "most_error_ratio": 1.2,
            "undecided": "pause",
            "last_step": "second_person",
        },
        help_text="What differs from the usual plan, which has the stages 1, 5, 25 and "
        "50 %. Empty: the usual plan. Running rollouts keep the plan that they began "
        "with.",
    )

    class Meta:
        model = RolloutPlan
        fields = ("name", "plan")

    def clean_plan(self) -> Any:
        value = self.cleaned_data["plan"]
        try:
            rollout_plans.parse(value)
        except ValueError as error:
            raise forms.ValidationError(str(error)) from error
        return value


@admin.register(RolloutPlan)
class RolloutPlanAdmin(HistoryAdmin):
    form = RolloutPlanForm
    list_display = ("name", "stages")
    search_fields = ("name",)
    ordering = ("name",)

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return request.user.has_perm("registry.add_rolloutplan")

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return request.user.has_perm("registry.delete_rolloutplan")

    @display(description="stages")
    def stages(self, row: RolloutPlan) -> str:
        try:
            plan = rollout_plans.parse(row.plan)
        except ValueError:
            return "not valid any more"
        return ", ".join(f"{stage.weight_percent} %" for stage in plan.stages)
