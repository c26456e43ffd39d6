"""Tell what applied to a model's calls at a time: the route's state and the rollout."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db.models import Q

from inference.models import Rollout
from registry.models import RegisteredModel
from registry.past import route_history
from registry.past.route_history import PastState


@dataclass(frozen=True, slots=True)
class PastRollout:
    """The rollout that moved weights at a time, and its stage, counted from 1."""

    rollout_id: int
    version: int
    stage: int
    weight_percent: int
    # What it or a person did last, e.g. advanced, paused.
    last_action: str

    def in_words(self) -> str:
        return (
            f"stage {self.stage} of rollout {self.rollout_id} ({self.weight_percent} %,"
            f" {self.last_action})"
        )


def rollouts_at(model: str, at: datetime) -> list[PastRollout]:
    """Return the rollouts of a model that had not ended at a time, the newest first."""
    rollouts = Rollout.objects.filter(
        Q(ended_at=None) | Q(ended_at__gt=at),
        registered_model__name=model,
        started_at__lte=at,
    )
    found = [_at(rollout, at) for rollout in rollouts.select_related("version")]
    return [each for each in found if each is not None]


def _at(rollout: Rollout, at: datetime) -> PastRollout | None:
    # A rollout and its first event begin microseconds apart.
    event = rollout.events.filter(at__lte=at).first() or rollout.events.last()
    if event is None:
        return None
    return PastRollout(
        rollout_id=rollout.pk,
        version=rollout.version.version,
        stage=event.stage + 1,
        weight_percent=event.weight_percent,
        last_action=event.action,
    )


def facts(model: str, at: datetime) -> dict[str, Any]:
    """Describe as JSON what applied at a time; null for what there was not."""
    found = RegisteredModel.objects.filter(name=model).first()
    state = None if found is None else route_history.state_at(found, at)
    return {
        "route": None if state is None else facts_of(state),
        **rollouts_facts(rollouts_at(model, at)),
    }


def in_words(model: str, at: datetime) -> str:
    """Describe in words what applied at a time; empty without a route."""
    found = RegisteredModel.objects.filter(name=model).first()
    state = None if found is None else route_history.state_at(found, at)
    parts = [] if state is None else [state.in_words()]
    return "; ".join(parts + [each.in_words() for each in rollouts_at(model, at)])


def facts_of(state: PastState) -> dict[str, Any]:
    def text(number: int | None) -> str | None:
        return None if number is None else str(number)

    weights = [
        {"version": text(canary.version), "weight_percent": canary.weight_percent}
        for canary in state.canaries
    ]
    first = weights[0] if weights else {"version": None, "weight_percent": 0}
    return {
        "at": state.at.isoformat(),
        "enabled": state.enabled,
        "default_version": text(state.default_version),
        "default_weight_percent": state.default_weight_percent,
        # The first of the canaries: before there were several, there was this one.
        "canary_version": first["version"],
        "canary_weight_percent": first["weight_percent"],
        "canaries": weights,
        "shadow_version": text(state.shadow_version),
        "shadow_percent": state.shadow_percent,
        "by": state.by or None,
        "reason": state.why,
    }


def rollouts_facts(rollouts: list[PastRollout]) -> dict[str, Any]:
    facts = [_rollout_facts(rollout) for rollout in rollouts]
    # The newest of them: before there were several, there was this one.
    return {"rollout": facts[0] if facts else None, "rollouts": facts}


def _rollout_facts(rollout: PastRollout) -> dict[str, Any]:
    return {
        "id": rollout.rollout_id,
        "version": str(rollout.version),
        "stage": rollout.stage,
        "weight_percent": rollout.weight_percent,
        "last_action": rollout.last_action,
    }
