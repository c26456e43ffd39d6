"""Promote the versions to which people moved aliases in MLflow.

What we set ourselves is remembered, so a promotion never follows from itself.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import structlog
from django.db import transaction

from registry.aliases import wishes
from registry.mlflow.types import RemoteModel
from registry.models import AliasState, ModelVersion, Route

log = structlog.get_logger(__name__)

# Promotes a version; returns why it could not, or nothing.
Promote = Callable[[Route, ModelVersion], str]


def revisions() -> dict[int, int]:
    """Read the revision of each alias state before MLflow is asked.

    A state that is written meanwhile is newer than MLflow's answer, so that answer does
    not lead it.
    """
    return dict(_leading().values_list("pk", "revision"))


def follow(
    remote: Sequence[RemoteModel], *, known: Mapping[int, int], promote: Promote
) -> None:
    """Promote where an alias has moved since it was last dealt with.

    `known` is what `revisions` returned before `remote` was read.
    """
    aliases = {model.name: model.aliases for model in remote}
    states = _leading().select_related(
        "route__registered_model", "route__default_version"
    )
    for state in states:
        standing = aliases.get(state.route.registered_model.name)
        if standing is None or known.get(state.pk) != state.revision:
            continue
        try:
            with transaction.atomic():
                _follow(state, standing.get(state.route.alias), promote=promote)
        except Exception as error:
            # A boundary: the trouble of one alias must not keep the sync from others.
            log.exception("alias_not_followed", route=str(state.route))
            problem = (
                f"The alias could not be followed ({type(error).__name__}), and each "
                "sync tries again. The log of the worker says more."
            )
            if problem != state.problem:
                wishes.write(state.route_id, problem=problem)


def _leading() -> Any:
    return AliasState.objects.filter(
        wanted_version=None, route__alias_follows__in=wishes.LEADING
    )


def _follow(state: AliasState, number: int | None, *, promote: Promote) -> None:
    route, why_not = state.route, ""
    if number is None:
        why_not = f"MLflow has no alias {route.alias}."
    elif number not in (state.seen_version, route.default_version.version):
        why_not = _promote(route, number, promote=promote)
        if why_not:
            # Each sync tries again, until it works or somebody decides otherwise.
            number = state.seen_version
            why_not = f"The alias was moved, and nothing else was: {why_not}"
        else:
            log.info("alias_followed", route=str(route), version=number)
            # The promotion wished for the alias where it stands already.
            wishes.write(route.pk, seen_version=number, wanted_version=None)
            return
    if (number, why_not) != (state.seen_version, state.problem):
        wishes.write(route.pk, seen_version=number, problem=why_not)


def _promote(route: Route, number: int, *, promote: Promote) -> str:
    versions = route.registered_model.versions.select_related("registered_model")
    version = versions.filter(version=number).first()
    if version is None:
        return f"v{number} is not known here."
    return promote(route, version)
