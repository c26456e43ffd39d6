"""Compare each canary's answers of the last hour with those of its default."""

import datetime
from collections import Counter, defaultdict
from typing import TypedDict

from django.db.models import Sum

from accounts.usage import spans
from inference.models import ServingRoute
from registry.models import Route

_HOUR = datetime.timedelta(hours=1)
_MINUTE = datetime.timedelta(minutes=1)
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


def canaries(now: datetime.datetime, *, model: str | None = None) -> list[CanaryRow]:
    """Return the desired and the observed share of each route's canary, with errors."""
    routes = Route.objects.filter(
        enabled=True, canary_version__isnull=False
    ).select_related("registered_model", "default_version", "canary_version")
    if model is not None:
        routes = routes.filter(registered_model__name=model)
    by_model = {route.registered_model.name: route for route in routes}
    if not by_model:
        return []
    serving = {
        row.model: row for row in ServingRoute.objects.filter(model__in=by_model)
    }
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
        variant, status = row["variant"], row["status"]
        if not _is_of(by_model[row["model"]], variant, row["version"]):
            continue
        counts = seen[row["model"]]
        counts[variant, "requests"] += row["count"]
        if status in _INPUT_REFUSED:
            counts[variant, "refused"] += row["count"]
        elif status >= 500:
            counts[variant, "failed"] += row["count"]
    return [
        _canary_row(route, serving.get(name), seen[name])
        for name, route in sorted(by_model.items())
    ]


def _is_of(route: Route, variant: str, version: str) -> bool:
    wanted = route.canary_version if variant == "canary" else route.default_version
    return wanted is not None and version == str(wanted.version)


def _canary_row(
    route: Route, serving: ServingRoute | None, seen: Counter[tuple[str, str]]
) -> CanaryRow:
    assert route.canary_version is not None
    default = _answers(route.default_version.version, "default", seen)
    canary = _answers(route.canary_version.version, "canary", seen)
    answered = default["requests"] + canary["requests"]
    counted_from = None
    if not answered and serving is not None:
        counted_from = serving.moved_at.replace(second=0, microsecond=0) + _MINUTE
    return CanaryRow(
        model=route.registered_model.name,
        route_id=route.pk,
        default=default,
        canary=canary,
        is_worse=_share_lost(canary) > _share_lost(default),
        weight_percent=route.canary_weight_percent,
        observed_percent=100 * canary["requests"] / answered if answered else None,
        counted_from=counted_from,
        requests=answered,
        waiting_for=serving.waiting_for if serving else "not served yet",
        url="",
    )


def _answers(version: int, variant: str, seen: Counter[tuple[str, str]]) -> Answers:
    return Answers(
        version=version,
        requests=seen[variant, "requests"],
        refused=seen[variant, "refused"],
        failed=seen[variant, "failed"],
    )


def _share_lost(answers: Answers) -> float:
    return (answers["refused"] + answers["failed"]) / (answers["requests"] or 1)
