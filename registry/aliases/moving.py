"""Move aliases in MLflow to the versions that became defaults.

A wish stays until MLflow has taken it: a worker tries at once, and each sync again.
"""

from datetime import timedelta

import structlog
from django.db.models import F, Q
from django.utils import timezone

from registry.aliases import wishes
from registry.mlflow.patience import Patience
from registry.mlflow.types import ModelRegistry, RegistryUnreachable
from registry.models import AliasState

log = structlog.get_logger(__name__)

# More than MLflow's time limit and its one retry take. A killed worker's claim ends
# then.
_CLAIM_LASTS = timedelta(minutes=1)
# An MLflow that does not answer costs seconds each time; one that refuses does not.
PATIENCE_S = 30.0


def move_wanted(registry: ModelRegistry) -> None:
    """Move all aliases that still have to be moved."""
    patience = Patience(PATIENCE_S)
    # In another order each time, so that no alias always comes too late.
    waiting = AliasState.objects.exclude(wanted_version=None).order_by("?")
    for route_id in list(waiting.values_list("route_id", flat=True)):
        if patience.has_ended:
            return
        move(registry, route_id, patience=patience)


def move(
    registry: ModelRegistry, route_id: int, *, patience: Patience | None = None
) -> bool:
    """Move a route's alias where it is wanted; return False if MLflow did not answer.

    Only one process moves an alias at a time, so that no old move follows a new one.
    """
    state = AliasState.objects.filter(route_id=route_id)
    now = timezone.now()
    free = Q(claimed_until=None) | Q(claimed_until__lt=now)
    if not state.filter(free).update(claimed_until=now + _CLAIM_LASTS):
        return True
    try:
        with (patience or Patience(PATIENCE_S)).asking():
            while _move_once(registry, route_id):
                pass
    except RegistryUnreachable as error:
        log.warning("alias_not_moved", outage="mlflow", reason=str(error))
        problem = f"The alias could not be moved, and each sync tries again: {error}"
        wishes.write(route_id, problem=problem)
        return False
    finally:
        state.update(claimed_until=None)
    return True


def _move_once(registry: ModelRegistry, route_id: int) -> bool:
    """Move the alias; return False if nothing is wanted."""
    states = AliasState.objects.select_related("route__registered_model")
    state = states.filter(route_id=route_id).exclude(wanted_version=None).first()
    if state is None or state.wanted_version is None:
        return False
    name, alias = state.route.registered_model.name, state.route.alias
    registry.set_alias(name, alias, state.wanted_version)
    log.info("alias_moved", model=name, alias=alias, to=state.wanted_version)
    # Another default may have been wished for meanwhile, which the next turn sets.
    AliasState.objects.filter(pk=state.pk, revision=state.revision).update(
        seen_version=state.wanted_version,
        wanted_version=None,
        problem="",
        revision=F("revision") + 1,
    )
    return True
