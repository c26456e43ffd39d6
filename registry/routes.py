"""Change which versions answer: defaults, canaries and their weights.

They change the *desired* route. Requests move once engines have loaded the versions.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from django.db import transaction

from registry import artifacts, changes
from registry.changes import Person
from registry.mlflow import types
from registry.mlflow.types import Json
from registry.models import ModelVersion, RegisteredModel, Route
from registry.rules import column_rules, metadata

# The errors that a fallback may replace: those that are not the caller's fault.
FALLBACK_CODES = frozenset(
    {"OVERLOADED", "MODEL_UNAVAILABLE", "INFERENCE_TIMEOUT", "MODEL_ERROR"}
)
_MAX_NAMES = 10


class RouteError(ValueError):
    """The route does not allow the change; the text may be shown to people."""


def make_default(version: ModelVersion, *, by: Person) -> Route:
    """Send the model's main traffic to `version`; create the route if needed.

    If `version` was the canary, the canary ends and `version` gets all traffic.
    """
    _require_callable(version)
    with transaction.atomic():
        route = _locked(version.registered_model)
        if route is None:
            route = Route(registered_model=version.registered_model)
        elif route.default_version_id == version.pk:
            raise RouteError(f"{version} already is the default.")
        if route.canary_version_id == version.pk:
            _clear_canary(route)
        route.default_version = version
        save(route, by=by, reason=f"v{version.version} became the default")
    return route


def start_canary(version: ModelVersion, *, weight_percent: int, by: Person) -> Route:
    """Send `weight_percent` of the traffic to `version`, ending any other canary."""
    _require_callable(version)
    _require_weight(weight_percent)
    with transaction.atomic():
        route = _locked(version.registered_model)
        if route is None:
            raise RouteError(
                f"{version.registered_model.name} has no default version yet. Make one "
                "the default first."
            )
        if route.default_version_id == version.pk:
            raise RouteError(f"{version} is the default, so it cannot be the canary.")
        route.canary_version = version
        _set_weight(route, weight_percent)
        reason = f"v{version.version} became the canary with {weight_percent} %"
        save(route, by=by, reason=reason)
    return route


def set_canary_weight(route: Route, *, weight_percent: int, by: Person) -> Route:
    _require_weight(weight_percent)
    with transaction.atomic():
        route = _reread(route)
        _set_weight(route, weight_percent)
        save(route, by=by, reason=f"the canary's weight became {weight_percent} %")
    return route


def stop_canary(route: Route, *, by: Person, seen: int | None = None) -> Route:
    """Send all traffic to the default; raise RouteError if the canary is not `seen`."""
    with transaction.atomic():
        route = _reread(route)
        version = _canary_of(route, seen=seen)
        _clear_canary(route)
        save(route, by=by, reason=f"v{version.version} stopped being the canary")
    return route


def promote_canary(route: Route, *, by: Person, seen: int | None = None) -> Route:
    """Make the canary the default; raise RouteError if it is not `seen`."""
    with transaction.atomic():
        version = _canary_of(_reread(route), seen=seen)
        return make_default(version, by=by)


def publish(version: ModelVersion, *, by: Person) -> None:
    """Let callers name `version` even if no route does."""
    _require_callable(version)
    version.published = True
    with transaction.atomic():
        changes.save(version, by=by, reason="published")
        artifacts.fetch_soon(version)


def withdraw(version: ModelVersion, *, by: Person) -> None:
    """Undo `publish`; the version stays callable while a route names it."""
    version.published = False
    changes.save(version, by=by, reason="withdrawn")


def save(route: Route, *, by: Person, reason: str) -> None:
    """Save an edited route and have the artifacts of its versions fetched."""
    route.updated_by = by  # type: ignore[assignment]  # the configured user model
    with transaction.atomic():
        changes.save(route, by=by, reason=reason)
        for version in (
            route.default_version,
            route.canary_version,
            route.fallback_version,
        ):
            if version is not None:
                artifacts.fetch_soon(version)


@dataclass(frozen=True, slots=True)
class RouteProblem:
    field: str
    sentence: str


def problems_of(
    *,
    default: ModelVersion | None,
    canary: ModelVersion | None,
    fallback: ModelVersion | None = None,
    fallback_on: Any = (),
    fallback_answer: Any = None,
    changed: Collection[str],
    input_rules: Json,
    batching: Json,
) -> list[RouteProblem]:
    """Return the reasons why an edited route cannot be saved.

    Only changed versions are checked: a version that disappeared from MLflow must not
    keep a person from changing the rest.
    """
    problems = []
    for field, version in (
        ("default_version", default),
        ("canary_version", canary),
        ("fallback_version", fallback),
    ):
        if version is None or field not in changed:
            continue
        try:
            _require_callable(version)
        except RouteError as error:
            problems.append(RouteProblem(field, str(error)))
    if default is not None and default == canary:
        problems.append(
            RouteProblem("canary_version", "The default cannot be the canary.")
        )
    if default is not None and "input_rules" in changed:
        columns = column_rules.columns_of(default.metadata, default.signature)
        problems += [
            RouteProblem("input_rules", sentence)
            for sentence in metadata.check_rules(input_rules, columns=columns)
        ]
    if default is not None and fallback is not None:
        problems += _problems_of_fallback(default, fallback)
    if default is not None and fallback_answer is not None:
        problems += _problems_of_answer(default, fallback_answer)
    if "fallback_on" in changed:
        problems += _problems_of_codes(fallback_on)
    if "batching" in changed:
        problems += [
            RouteProblem("batching", sentence)
            for sentence in metadata.check_batching(batching)
        ]
    return problems


def _problems_of_fallback(
    default: ModelVersion, fallback: ModelVersion
) -> list[RouteProblem]:
    """Check that the fallback takes the same inputs as the default."""
    wanted, taken = _inputs(default), _inputs(fallback)
    if wanted == taken:
        if list(wanted) == list(taken):
            return []
        # Rows may be lists, in which the order of the values names them.
        sentence = f"{fallback} takes its columns in another order than {default}."
        return [RouteProblem("fallback_version", sentence)]
    differing = sorted(
        name
        for name in wanted.keys() | taken.keys()
        if wanted.get(name) != taken.get(name)
    )
    names = ", ".join(differing[:_MAX_NAMES])
    if len(differing) > _MAX_NAMES:
        names += f" and {len(differing) - _MAX_NAMES} more"
    sentence = f"{fallback} takes another input than {default}. They differ in: {names}"
    return [RouteProblem("fallback_version", f"{sentence}.")]


def _inputs(version: ModelVersion) -> dict[str, Any]:
    """Return the declared inputs by name, or by position if they have no name."""
    declared = version.signature.get("inputs") or []
    columns = [
        column.name
        for column in column_rules.columns_of(version.metadata, version.signature)
    ]
    found: dict[str, Any] = {}
    for position, column in enumerate(declared):
        found[types.input_name(column, f"input {position}")] = column
    # The metadata names the columns of a tensor.
    if columns and not set(columns) <= found.keys():
        found |= {name: place for place, name in enumerate(columns)}
    return found


def _problems_of_answer(default: ModelVersion, answer: Any) -> list[RouteProblem]:
    """Require a vector as the fixed answer of an embedding model."""
    if default.metadata.get("task") != "embedding":
        return []
    numbers = isinstance(answer, list) and all(
        isinstance(each, int | float) and not isinstance(each, bool) for each in answer
    )
    if numbers and answer:
        return []
    sentence = f"{default} gives embeddings: the answer has to be a list of numbers."
    return [RouteProblem("fallback_answer", sentence)]


def _problems_of_codes(codes: Any) -> list[RouteProblem]:
    known = isinstance(codes, list) and set(map(str, codes)) <= FALLBACK_CODES
    if known and codes:
        return []
    names = ", ".join(sorted(FALLBACK_CODES))
    return [RouteProblem("fallback_on", f"Name at least one of {names}, as a list.")]


def _require_callable(version: ModelVersion) -> None:
    if version.missing_since or version.registered_model.missing_since:
        raise RouteError(f"{version} is no longer in MLflow.")
    if version.metadata_errors:
        raise RouteError(
            f"{version} cannot be served: {' '.join(version.metadata_errors)}"
        )
    if not version.signature.get("inputs"):
        raise RouteError(
            f"{version} was logged without an input signature, so requests cannot be "
            "checked. Log it with `signature=` or `input_example=`."
        )
    if version.mlflow_status not in ("", "READY"):
        raise RouteError(
            f"MLflow says that {version} is {version.mlflow_status}, not READY."
        )


def _require_weight(weight_percent: int) -> None:
    if not 0 <= weight_percent <= 100:
        raise RouteError("A weight is a whole number from 0 to 100.")


def _locked(model: RegisteredModel) -> Route | None:
    routes = Route.objects.select_for_update(of=("self",))
    return routes.filter(registered_model=model).first()


def _reread(route: Route) -> Route:
    """Lock the row and read it again: another person may have changed it."""
    return Route.objects.select_for_update(of=("self",)).get(pk=route.pk)


def _canary_of(route: Route, *, seen: int | None = None) -> ModelVersion:
    if route.canary_version is None:
        raise RouteError(f"{route.registered_model.name} has no canary.")
    if seen is not None and route.canary_version_id != seen:
        raise RouteError(f"{route.canary_version} is the canary by now. Ask again.")
    return route.canary_version


def _set_weight(route: Route, weight_percent: int) -> None:
    _canary_of(route)
    route.canary_weight_percent = weight_percent
    route.default_weight_percent = 100 - weight_percent


def _clear_canary(route: Route) -> None:
    route.canary_version = None
    route.canary_weight_percent, route.default_weight_percent = 0, 100
