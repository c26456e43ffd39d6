"""The admin's first page: traffic, errors, canaries, engines and registry sync."""

import datetime
import json
from collections import Counter, defaultdict
from typing import Any, TypedDict

from django.db.models import Count
from django.http import HttpRequest
from django.urls import NoReverseMatch, reverse
from django.utils import timezone

from accounts.models import ApiKey, Usage
from accounts.usage import latencies as usage_latencies
from accounts.usage import reading, roll_ups, spans
from config.demo import contents
from config.pages import check, rollouts
from config.pages.rollouts import CanaryRow
from inference.admin import state_labels
from inference.conditions import hosts
from inference.conditions.reading import states_of_named
from inference.conditions.states import TROUBLES, ServingState, StateReport
from inference.models import Engine, LoadedVersion, Rollout
from inference.snapshot.targets import FALLBACK, PUBLISHED
from registry.admin import columns
from registry.models import RegisteredModel, RegistrySync, Route

_HOUR = datetime.timedelta(hours=1)
_MINUTE = datetime.timedelta(minutes=1)
_DAY = datetime.timedelta(days=1)
# Most versions in trouble, or processes away, that are named.
_SHOWN = 8
# Three rounds of the sync, which runs each minute.
_STALE_AFTER = datetime.timedelta(minutes=3)
_TOP_CUSTOMERS = 5


class Card(TypedDict):
    title: str
    value: str
    note: str
    icon: str


def add_context(request: HttpRequest, context: dict[str, Any]) -> dict[str, Any]:
    """Add what unfold's index page shows; some parts need a permission."""
    now = timezone.now()
    may = request.user.has_perm
    hour = spans.between(now - _HOUR, now, grain="minute")
    calls = reading.over_time(hour, "minute", "variant", "status", "code")
    latencies = usage_latencies.latencies(hour)
    [by_customer] = reading.most_used(spans.between(now - _DAY, now), "customer_id")
    of_day = reading.add_up(by_customer)["requests"]
    canaries = rollouts.canaries(now)
    for row in canaries:
        row["url"] = _route_url(request, row["route_id"])
        row["rollout_url"] = _rollout_url(request, row["rollout"])
    context.update(
        cards=[*_traffic_cards(calls, of_day, latencies), _canary_card(canaries, now)],
        has_traffic=of_day > 0,
        chart=json.dumps(_chart(_by_minute(calls), now=now)),
        chart_options=json.dumps(_CHART_OPTIONS),
        errors=reading.refusals(calls)[:8],
        errors_url=reverse("errors"),
        canaries=canaries,
        steps=_first_steps(request) if not of_day else [],
        demo=contents.for_staff(),
    )
    if may("accounts.view_usage"):
        top = by_customer[:_TOP_CUSTOMERS]
        reading.name_customers(top)
        context["top_customers"] = top
        context["roll_ups"] = _roll_up_state(now)
    context["may_check"] = may(check.PERMISSION)
    if may("inference.view_engine"):
        context["engines"] = _engines(now)
        context["own_processes"] = _own_processes(now)
        context["versions"] = _versions(request)
    if may("registry.view_registrysync"):
        context["sync"] = _sync_state(request, now)
    return context


# Traffic


def _traffic_cards(
    calls: list[dict[str, Any]], of_day: int, latencies: usage_latencies.Latencies
) -> list[Card]:
    totals = reading.add_up(calls)
    rate = 100 * totals["errors"] / totals["requests"] if totals["requests"] else None
    p50, p95, p99 = (
        _milliseconds(latencies.percentile_ms(percent)) for percent in (50, 95, 99)
    )
    return [
        Card(
            title="Requests",
            value=f"{totals['requests']:,}",
            note=f"in the last hour; {of_day:,} in 24 hours",
            icon="bar_chart",
        ),
        Card(
            title="Errors",
            value="–" if rate is None else f"{rate:.1f} %",
            note=f"{totals['errors']:,} refused or failed in the last hour",
            icon="error",
        ),
        Card(
            title="Median latency",
            value=p50,
            note=f"95\N{NO-BREAK SPACE}%:\N{NO-BREAK SPACE}{p95}, "
            f"99\N{NO-BREAK SPACE}%:\N{NO-BREAK SPACE}{p99}",
            icon="timer",
        ),
    ]


def _milliseconds(value: float | None) -> str:
    if value is None:
        return "–"
    number = f"{value:,.0f}" if value >= 10 else f"{value:.1f}"
    # The space keeps number and unit on one line.
    return f"{number}\N{NO-BREAK SPACE}ms"


def _by_minute(
    calls: list[dict[str, Any]],
) -> dict[tuple[datetime.datetime, str], int]:
    counts: Counter[tuple[datetime.datetime, str]] = Counter()
    for row in reading.per(calls, "start", "variant"):
        counts[row["start"], row["variant"]] += row["requests"] - row["errors"]
        # Most calls are refused after their variant was chosen, so errors have one too.
        counts[row["start"], _NOT_ANSWERED] += row["errors"]
    return counts


_NOT_ANSWERED = ""
_SERIES = (
    ("default", "Default", "var(--color-primary-600)"),
    ("canary", "Canary", "#f59e0b"),
    (FALLBACK, "Fallback", "#0d9488"),
    (PUBLISHED, "By version", "#0ea5e9"),
    (_NOT_ANSWERED, "Refused or failed", "#94a3b8"),
)

_CHART_OPTIONS: dict[str, Any] = {
    "animation": False,
    "maintainAspectRatio": False,
    "interaction": {"mode": "index", "intersect": False},
    "plugins": {
        "legend": {
            "align": "end",
            "labels": {"boxWidth": 10, "boxHeight": 10, "color": "#9ca3af"},
        }
    },
    "scales": {
        "x": {
            "stacked": True,
            "grid": {"display": False},
            "ticks": {"color": "#9ca3af", "maxTicksLimit": 7, "maxRotation": 0},
        },
        "y": {
            "stacked": True,
            "beginAtZero": True,
            "border": {"display": False},
            "ticks": {"color": "#9ca3af", "precision": 0, "maxTicksLimit": 5},
        },
    },
}


def _chart(
    minutes: dict[tuple[datetime.datetime, str], int], *, now: datetime.datetime
) -> dict[str, Any]:
    last = now.replace(second=0, microsecond=0)
    axis = [last - step * _MINUTE for step in reversed(range(60))]
    return {
        "labels": [minute.strftime("%H:%M") for minute in axis],
        "datasets": [
            {
                "label": label,
                "data": [minutes.get((minute, variant), 0) for minute in axis],
                "backgroundColor": colour,
                "borderRadius": 2,
                "barPercentage": 0.9,
                "categoryPercentage": 0.9,
            }
            for variant, label, colour in _SERIES
        ],
    }


# Rollouts


def _canary_card(canaries: list[CanaryRow], now: datetime.datetime) -> Card:
    waiting = sum(1 for row in canaries if row["waiting_for"])
    worse = sum(1 for row in canaries if row["is_worse"])
    notes = []
    if worse:
        notes.append(f"{worse} refused or failed more than the default")
    if waiting:
        notes.append(f"{waiting} waiting for an engine")
    notes += rollouts.to_look_at(now)
    return Card(
        title="Active canaries",
        value=str(len(canaries)),
        note=", ".join(notes) or "all as wanted",
        icon="alt_route",
    )


# The parts


def _engines(now: datetime.datetime) -> list[dict[str, Any]]:
    """Return the engines of devices; there are as many others as versions."""
    loaded: dict[int, Counter[str]] = defaultdict(Counter)
    counts = LoadedVersion.objects.filter(engine__kind=Engine.Kind.DEVICE).order_by()
    for engine_id, state, count in counts.values_list("engine_id", "state").annotate(
        count=Count("pk")
    ):
        loaded[engine_id][state] = count
    return [
        {
            "name": engine.name,
            "running": _is_running(engine, now),
            "error": columns.in_short(engine.error),
            "ready": loaded[engine.pk][LoadedVersion.State.READY],
            "loading": loaded[engine.pk][LoadedVersion.State.LOADING],
            "memory_bytes": engine.memory_bytes,
            "seen_at": engine.seen_at,
        }
        for engine in Engine.objects.filter(kind=Engine.Kind.DEVICE)
    ]


def _own_processes(now: datetime.datetime) -> dict[str, Any]:
    """Add up the processes of versions that run their authors' code."""
    engines = list(
        Engine.objects.exclude(kind=Engine.Kind.DEVICE).only(
            "name", "state", "seen_at", "memory_bytes"
        )
    )
    away = [engine.name for engine in engines if not _is_running(engine, now)]
    return {
        "count": len(engines),
        "away": away[:_SHOWN],
        "more_away": len(away[_SHOWN:]),
        "memory_bytes": sum(engine.memory_bytes for engine in engines),
    }


def _is_running(engine: Engine, now: datetime.datetime) -> bool:
    away = hosts.is_away(engine.seen_at, now=now)
    return engine.state == Engine.State.RUNNING and not away


def _versions(request: HttpRequest) -> dict[str, Any]:
    """Count the versions that are called for by state, and name those in trouble."""
    found = states_of_named()
    counts = Counter(report.state for _, report in found)
    troubled = [each for each in found if each[1].state in TROUBLES]
    return {
        "counts": [
            {"label": state_labels.label(StateReport(state)), "count": counts[state]}
            for state in ServingState
            if counts[state]
        ],
        "troubled": [
            {
                "name": str(version),
                "label": state_labels.label(report),
                "sentence": columns.in_short(report.reason),
                "url": _why_url(request, version.pk),
            }
            for version, report in troubled[:_SHOWN]
        ],
        "more": len(troubled[_SHOWN:]),
        "url": _list_url(request, "registry", "modelversion"),
        "events_url": _list_url(request, "inference", "versionevent"),
    }


def _roll_up_state(now: datetime.datetime) -> dict[str, Any]:
    lag = roll_ups.lag(now=now)
    return {
        "late": lag > roll_ups.LATE_AFTER,
        "since": now - lag,
        "minutes_from": roll_ups.kept_from(),
    }


def _sync_state(request: HttpRequest, now: datetime.datetime) -> dict[str, Any] | None:
    sync = RegistrySync.objects.first()
    if sync is None:
        return None
    return {
        "tracking_uri": sync.tracking_uri,
        "succeeded_at": sync.succeeded_at,
        "error": columns.in_short(sync.error),
        "stale": sync.succeeded_at is None or now - sync.succeeded_at > _STALE_AFTER,
        "url": _list_url(request, "registry", "registrysync"),
    }


# Day one


def _first_steps(request: HttpRequest) -> list[dict[str, Any]]:
    """Return the steps to the first answer, with links to pages the person may see."""
    steps = [
        (
            "Register a model in MLflow",
            "It appears here within a minute, or press the sync button.",
            RegisteredModel.objects.exists(),
            _list_url(request, "registry", "registeredmodel"),
        ),
        (
            "Choose the version that answers",
            "Open its version and press “make default”.",
            Route.objects.exists(),
            _list_url(request, "registry", "modelversion"),
        ),
        (
            "Create a customer and issue a key",
            "The key is shown once.",
            ApiKey.objects.exists(),
            _list_url(request, "accounts", "apikey"),
        ),
        (
            "Send the first request",
            "The start page has a command to paste.",
            Usage.objects.exists(),
            reverse("start"),
        ),
    ]
    return [
        {"title": title, "text": text, "done": done, "url": url}
        for title, text, done, url in steps
    ]


def _list_url(request: HttpRequest, app: str, model: str) -> str:
    """Return the URL of a model's list; "" if there is none or it may not be seen."""
    if not request.user.has_perm(f"{app}.view_{model}"):
        return ""
    try:
        return reverse(f"admin:{app}_{model}_changelist")
    except NoReverseMatch:
        return ""


def _route_url(request: HttpRequest, route_id: int) -> str:
    if not request.user.has_perm("registry.view_route"):
        return ""
    return reverse("admin:registry_route_change", args=[route_id])


def _rollout_url(request: HttpRequest, rollout: Rollout | None) -> str:
    if rollout is None or not request.user.has_perm("inference.view_rollout"):
        return ""
    return reverse("admin:inference_rollout_change", args=[rollout.pk])


def _why_url(request: HttpRequest, version_id: int) -> str:
    """Return where a version's page says why it is in trouble."""
    if not request.user.has_perm("registry.view_modelversion"):
        return ""
    return reverse("admin:registry_modelversion_change", args=[version_id]) + "#why"
