"""Note where the alias of a route has to stand, in the transaction of each change."""

from functools import partial
from typing import Any

import structlog
from celery import current_app
from django.db import transaction
from django.db.models import F
from kombu.exceptions import OperationalError

from registry.models import Alias, AliasState, Route

log = structlog.get_logger(__name__)

MOVE_TASK = "registry.tasks.move_alias"
Follows = Route.AliasFollows
# Promoting moves the alias of these, and moving the alias promotes in those.
MOVED = (Follows.PROMOTION, Follows.BOTH)
LEADING = (Follows.ALIAS, Follows.BOTH)

# Default, alias and direction of a stored route; None while it is not stored.
Before = tuple[int, str, str] | None


def before(route: Route) -> Before:
    """Read what a route said before it is saved."""
    stored = Route.objects.filter(pk=route.pk)
    return stored.values_list("default_version_id", "alias", "alias_follows").first()


def note(route: Route, before: Before) -> None:
    """Note what a saved change means for the route's alias.

    A new default is a wish to move the alias, if it follows promotions. Otherwise the
    person has decided, and the place where the alias stands now leads nothing.
    """
    if route.alias_follows == Follows.OFF:
        AliasState.objects.filter(route=route).delete()
        return
    default, *alias = before or (None, "", "")
    if alias != [route.alias, route.alias_follows]:
        write(route.pk, seen_version=_stands_at(route), wanted_version=None)
    if default == route.default_version_id:
        return
    if route.alias_follows in MOVED:
        write(route.pk, wanted_version=route.default_version.version)
        transaction.on_commit(partial(_queue_move, route.pk))
    else:
        write(route.pk, seen_version=_stands_at(route))


def write(route_id: int, *, problem: str = "", **fields: Any) -> None:
    """Write the state of a route's alias; every writing has a new revision."""
    state, _ = AliasState.objects.get_or_create(route_id=route_id)
    AliasState.objects.filter(pk=state.pk).update(
        problem=problem, revision=F("revision") + 1, **fields
    )


def _stands_at(route: Route) -> int | None:
    """Return the version at which the last sync saw the alias; None: nowhere."""
    aliases = Alias.objects.filter(
        registered_model_id=route.registered_model_id, name=route.alias
    )
    return aliases.values_list("version__version", flat=True).first()


def _queue_move(route_id: int) -> None:
    # By the task's name: `registry.tasks` stands above.
    try:
        current_app.send_task(MOVE_TASK, (route_id,), retry=False)
    except (OperationalError, OSError) as error:
        # The next sync moves it as well.
        log.warning("alias_move_not_queued", route_id=route_id, reason=error)
