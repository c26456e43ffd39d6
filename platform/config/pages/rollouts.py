"""Show canaries: their answers beside the default's, their rollouts, their troubles."""

import datetime
from collections import Counter, defaultdict
from typing import TypedDict

from django.db.models import Count, Q, Sum

from accounts.usage import spans
from inference.models import Rollout, ServingRoute
from registry.models import ModelVersion, Route
from registry.shares.canaries import Canary

_HOUR = datetime.timedelta(hours=1)
_MINUTE = datetime.timedelta(minutes=1)
_DAY = datetime.timedelta(days=1)
# Refusals of an input depend on the version that checks it. Refusals by keys and limits
# do not: these are checked before, equally for all versions.
_INPUT_REFUSED = frozenset({400, 413, 415, 422})


class Answers(TypedDict):
    """Counts of one version's answers."""

    version: int
    requests: int
    # Inputs that it refused; another version may accept them.
    refused: int
    failed: int


class CanaryRow(TypedDict):
    model: str
    route_id: int
    default: Answers
    canary: Answers
    # The canary refused or failed a larger share than the default.
    is_worse: bool
    weight_percent: int
    # None until something is answered after the last change of the variants.
    observed_percent: float | None
    # The start of the first minute that will count, if none has counted yet.
    counted_from: datetime.datetime | None
    requests: int
    waiting_for: str
    url: str
    # The rollout that set the weight, if one did.
    rollout: Rollout | None
    rollout_url: str


# States of rollouts that somebody should look at, as the dashboard says them.
_TO_LOOK_AT = {
    Rollout.State.PAUSED: "paused",
    Rollout.State.APPROVAL: "waiting for a second person",
    Rollout.State.ROLLED_BACK: "rolled back in 24 hours",
}


def to_look_at(now: datetime.datetime) -> list[str]:
    """Say how many rollouts wait for a person or were rolled back in the last day."""
    wait = Q(state__in=(Rollout.State.PAUSED, Rollout.State.APPROVAL))
    rolled_back = Q(state=Rollout.State.ROLLED_BACK, ended_at__gte=now - _DAY)
    found = Rollout.objects.filter(wait | rolled_back).order_by().values_list("state")
    counts = dict(found.annotate(number=Count("pk")))
    return [
        f"{counts[state]} rollout{'s' if counts[state] > 1 else ''} {words}"
        for state, words in _TO_LOOK_AT.items()
        if state in counts
    ]


def canaries(now: datetime.datetime, *, model: str | None = None) -> list[CanaryRow]:
    """Return the desired and the observed share of each canary, with errors."""
    # The first place is taken if any is.
    routes = Route.objects.filter(
        enabled=True, canary_version__isnull=False
    ).select_related("registered_model", *Route.VERSIONS)
    if model is not None:
        routes = routes.filter(registered_model__name=model)
    by_model = {route.registered_model.name: route for route in routes}
    if not by_model:
        return []
    serving = {
        row.model: row for row in ServingRoute.objects.filter(model__in=by_model)
    }
    active = Rollout.objects.filter(state__in=Rollout.ACTIVE)
    found = active.filter(registered_model__name__in=by_model).defer("sums", "plan")
    moved_by = {it.version_id: it for it in found}
    seen: dict[str, Counter[tuple[str, str]]] = defaultdict(Counter)
    rows = (
        spans.minutes(now - _HOUR, now)
        .filter(model__in=by_model, variant__in=["default", "canary"])
        .order_by()
        .values("model", "version", "variant", "minute", "status")
        .annotate(count=Sum("requests"))
    )
    for row in rows:
        moved = serving.get(row["model"])
        # A minute in which the weights changed mixes old and new weights.
        if moved is not None and row["minute"] < moved.moved_at:
            continue
        version, status = row["version"], row["status"]
        if version not in _named(by_model[row["model"]], row["variant"]):
            continue
        counts = seen[row["model"]]
        counts[version, "requests"] += row["count"]
        if status in _INPUT_REFUSED:
            counts[version, "refused"] += row["count"]
        elif status >= 500:
            counts[version, "failed"] += row["count"]
    return [
        _canary_row(
            route,
            canary,
            serving.get(name),
            seen[name],
            moved_by.get(canary.version.pk),
        )
        for name, route in sorted(by_model.items())
        for canary in route.canaries
    ]


def _named(route: Route, variant: str) -> set[str]:
    """Return the versions that the route names as `variant`."""
    if variant == "default":
        return {str(route.default_version.version)}
    return {str(canary.version.version) for canary in route.canaries}


def _canary_row(
    route: Route,
    of: Canary[ModelVersion],
    serving: ServingRoute | None,
    seen: Counter[tuple[str, str]],
    rollout: Rollout | None,
) -> CanaryRow:
    default = _answers(route.default_version.version, seen)
    canary = _answers(of.version.version, seen)
    answered = sum(count for (_, what), count in seen.items() if what == "requests")
    counted_from = None
    if not answered and serving is not None:
        counted_from = serving.moved_at.replace(second=0, microsecond=0) + _MINUTE
    return CanaryRow(
        model=route.registered_model.name,
        route_id=route.pk,
        default=default,
        canary=canary,
        is_worse=_share_lost(canary) > _share_lost(default),
        weight_percent=of.weight_percent,
        observed_percent=100 * canary["requests"] / answered if answered else None,
        counted_from=counted_from,
        requests=answered,
        waiting_for=serving.waiting_for if serving else "not served yet",
        url="",
        rollout=rollout,
        rollout_url="",
    )


def _answers(version: int, seen: Counter[tuple[str, str]]) -> Answers:
    return Answers(
        version=version,
        requests=seen[str(version), "requests"],
        refused=seen[str(version), "refused"],
        failed=seen[str(version), "failed"],
    )


def _share_lost(answers: Answers) -> float:
    return (answers["refused"] + answers["failed"]) / (answers["requests"] or 1)
