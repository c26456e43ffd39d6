"""Change which versions answer: defaults, canaries and their weights.

They change the *desired* route. Requests move once engines have loaded the versions.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db import transaction

from registry import artifacts, changes, schema_gate
from registry.aliases import wishes
from registry.changes import Person
from registry.mlflow import types
from registry.mlflow.types import Json
from registry.models import ModelVersion, RegisteredModel, Route
from registry.rules import column_rules, metadata
from registry.schema_gate import Override
from registry.shares import canaries
from registry.shares.canaries import Canary

# The errors that a fallback may replace: those that are not the caller's fault.
FALLBACK_CODES = frozenset(
    {"OVERLOADED", "MODEL_UNAVAILABLE", "INFERENCE_TIMEOUT", "MODEL_ERROR"}
)
_MAX_NAMES = 10


class RouteError(ValueError):
    """The route does not allow the change; the text may be shown to people."""


def make_default(
    version: ModelVersion,
    *,
    by: Person,
    override: Override | None = None,
    why: str = "",
) -> Route:
    """Send the model's main traffic to `version`; create the route if needed.

    If `version` was a canary, it stops being one, and others keep their weights. The
    history keeps `why`, as it does in the functions below. Raises RouteError if it
    would break callers of the default and nobody overrides that, or if the route's
    fallback takes another input.
    """
    _require_callable(version)
    with transaction.atomic():
        route, note = _locked(version.registered_model), ""
        if route is None:
            route = Route(registered_model=version.registered_model)
        elif route.default_version_id == version.pk:
            raise RouteError(f"{version} already is the default.")
        else:
            note = _pass_gate(route, version, by=by, override=override)
        _require_fitting_fallback(route, version)
        route.set_canaries(_without(route, version))
        if route.shadow_version_id == version.pk:
            _clear_shadow(route)
        route.default_version = version
        reason = _because(f"v{version.version} became the default", why)
        save(route, by=by, reason=f"{reason}{note}")
    return route


def start_canary(
    version: ModelVersion,
    *,
    weight_percent: int,
    by: Person,
    override: Override | None = None,
    why: str = "",
) -> Route:
    """Send `weight_percent` of the traffic to `version`, beside other canaries.

    Raises RouteError if it would break callers of the default and nobody overrides
    that, if there is no room for it, or if the route's fallback takes another input.
    """
    _require_callable(version)
    with transaction.atomic():
        route = _locked_beside_default(version, role="a canary")
        note = _pass_gate(route, version, by=by, override=override)
        # As at its promotion, so that no rollout is refused at its end.
        _require_fitting_fallback(route, version)
        chosen = _with(route, Canary(version, weight_percent))
        _require_room(chosen)
        route.set_canaries(chosen)
        reason = f"v{version.version} became a canary with {weight_percent} %"
        save(route, by=by, reason=f"{_because(reason, why)}{note}")
    return route


def set_canary_weight(
    route: Route,
    *,
    weight_percent: int,
    by: Person,
    seen: int | None = None,
    why: str = "",
) -> Route:
    """Change the weight of the canary with the key `seen`, or of the only one.

    Raises RouteError if it is no canary, or if there is no room for the weight.
    """
    with transaction.atomic():
        route = _reread(route)
        version = _canary_of(route, seen=seen)
        chosen = _with(route, Canary(version, weight_percent))
        _require_room(chosen)
        route.set_canaries(chosen)
        whose = "the canary" if len(chosen) == 1 else f"v{version.version}"
        reason = f"{whose}'s weight became {weight_percent} %"
        save(route, by=by, reason=_because(reason, why))
    return route


def stop_canary(
    route: Route, *, by: Person, seen: int | None = None, why: str = ""
) -> Route:
    """Stop the canary with the key `seen`, or the only one: the default gets its calls.

    Raises RouteError if it is no canary.
    """
    with transaction.atomic():
        route = _reread(route)
        version = _canary_of(route, seen=seen)
        route.set_canaries(_without(route, version))
        reason = f"v{version.version} stopped being a canary"
        save(route, by=by, reason=_because(reason, why))
    return route


def promote_canary(
    route: Route,
    *,
    by: Person,
    seen: int | None = None,
    override: Override | None = None,
    why: str = "",
) -> Route:
    """Make the canary with the key `seen`, or the only one, the default.

    Raises RouteError if it is no canary, or as `make_default` does.
    """
    with transaction.atomic():
        version = _canary_of(_reread(route), seen=seen)
        return make_default(version, by=by, override=override, why=why)


def set_shadow(
    version: ModelVersion,
    *,
    percent: int,
    by: Person,
    override: Override | None = None,
    why: str = "",
) -> Route:
    """Copy `percent` of the default's predict calls to `version`, ending any other.

    Raises RouteError as `start_canary` does.
    """
    _require_callable(version)
    if not 1 <= percent <= 100:
        raise RouteError("The share of a shadow is a whole number from 1 to 100.")
    with transaction.atomic():
        route = _locked_beside_default(version, role="the shadow")
        note = _pass_gate(route, version, by=by, override=override)
        route.shadow_version, route.shadow_percent = version, percent
        reason = f"v{version.version} became the shadow with {percent} %"
        save(route, by=by, reason=f"{_because(reason, why)}{note}")
    return route


def stop_shadow(route: Route, *, by: Person, why: str = "") -> Route:
    """Copy no calls any more; raise RouteError if the route has no shadow."""
    with transaction.atomic():
        route = _reread(route)
        version = route.shadow_version
        if version is None:
            raise RouteError(f"{route.registered_model.name} has no shadow.")
        _clear_shadow(route)
        reason = f"v{version.version} stopped being the shadow"
        save(route, by=by, reason=_because(reason, why))
    return route


@dataclass(frozen=True, slots=True)
class Traffic:
    """How a route divides its calls; the default gets what canaries do not."""

    enabled: bool
    default: ModelVersion
    canaries: tuple[Canary[ModelVersion], ...] = ()
    shadow: ModelVersion | None = None
    shadow_percent: int = 0

    def in_words(self) -> str:
        chosen = [Canary(it.version.version, it.weight_percent) for it in self.canaries]
        shadow = None
        if self.shadow is not None:
            shadow = Canary(self.shadow.version, self.shadow_percent)
        return in_words(
            self.default.version, chosen, shadow=shadow, enabled=self.enabled
        )


def in_words(
    default: int | None,
    chosen: Sequence[Canary[Any]],
    *,
    shadow: Canary[Any] | None = None,
    enabled: bool,
) -> str:
    """Describe how calls are divided among versions; None: a deleted one."""
    shares = [Canary(default, 100 - canaries.total(chosen)), *chosen]
    text = ", ".join(f"{_title(number)} {weight} %" for number, weight in shares)
    if shadow is not None:
        text += f", shadow {_title(shadow.version)} {shadow.weight_percent} %"
    return text if enabled else f"{text}, off"


def traffic_of(route: Any) -> Traffic:
    """Return how a route, or a record of its history, divides its calls."""
    return Traffic(
        enabled=route.enabled,
        default=route.default_version,
        canaries=canaries.of(route),
        shadow=route.shadow_version,
        shadow_percent=route.shadow_percent,
    )


def set_traffic(
    route: Route,
    traffic: Traffic,
    *,
    by: Person,
    why: str,
    seen: datetime | None = None,
) -> str:
    """Divide a route's calls anew; return in words what changed.

    `seen` is the time of the last change that the person knew of. Raises RouteError if
    somebody changed the route later, nothing would change, or a version cannot serve
    or is newer than the default and would break its callers, if `by` may not do that.
    """
    with transaction.atomic():
        route = _reread(route)
        if seen is not None and route.updated_at != seen:
            raise RouteError(
                f"{route.updated_by or 'Somebody'} has changed this route since you "
                "opened the page. Look again."
            )
        before = traffic_of(route)
        if traffic == before:
            raise RouteError("Calls are divided like that already.")
        _require_room(traffic.canaries)
        known = [it.version for it in before.canaries]
        named = {
            name: it.version
            for name, it in zip(canaries.VERSIONS, traffic.canaries, strict=False)
        }
        changed = [name for name, version in named.items() if version not in known]
        if traffic.default != before.default:
            changed.append("default_version")
        if traffic.shadow != before.shadow:
            changed.append("shadow_version")
        problems = problems_of(
            default=traffic.default,
            canaries=named,
            shadow=traffic.shadow,
            fallback=route.fallback_version,
            fallback_answer=route.fallback_answer,
            changed=changed,
            input_rules=route.input_rules,
            batching=route.batching,
        )
        if problems:
            raise RouteError(" ".join(problem.sentence for problem in problems))
        undone = Override("an earlier state was set again")
        for version in (traffic.default, *named.values()):
            # The way back to an older version stays open, whatever callers notice.
            if version not in known and version.version > before.default.version:
                _pass_gate(route, version, by=by, override=undone)
        route.enabled = traffic.enabled
        route.default_version = traffic.default
        route.set_canaries(traffic.canaries)
        route.shadow_version = traffic.shadow
        route.shadow_percent = traffic.shadow_percent
        words = f"{before.in_words()} became {traffic.in_words()}"
        note = schema_gate.note_of(before.default, traffic.default, undone)
        save(route, by=by, reason=f"{_because(words, why)}{note}")
    return words


def _because(what: str, why: str) -> str:
    return f"{what}: {why}" if why else what


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
    """Save an edited route; have its alias moved and its artifacts fetched."""
    route.updated_by = by  # type: ignore[assignment]  # the configured user model
    with transaction.atomic():
        before = wishes.before(route)
        changes.save(route, by=by, reason=reason)
        wishes.note(route, before)
        for name in Route.VERSIONS:
            version = getattr(route, name)
            if version is not None:
                artifacts.fetch_soon(version)


@dataclass(frozen=True, slots=True)
class RouteProblem:
    field: str
    sentence: str


def problems_of(
    *,
    default: ModelVersion | None,
    canaries: Mapping[str, ModelVersion],
    shadow: ModelVersion | None = None,
    fallback: ModelVersion | None = None,
    fallback_on: Any = (),
    fallback_answer: Any = None,
    changed: Collection[str],
    input_rules: Json,
    batching: Json,
    published: ModelVersion | None = None,
    by: Person = None,
    override: Override | None = None,
) -> list[RouteProblem]:
    """Return the reasons why an edited route cannot be saved.

    Only changed versions are checked: a version that disappeared from MLflow must not
    keep a person from changing the rest. `canaries` are named by their fields, and
    `published` is the default before the edit.
    """
    problems = []
    for field, version in (
        ("default_version", default),
        *canaries.items(),
        ("shadow_version", shadow),
        ("fallback_version", fallback),
    ):
        if version is None or field not in changed:
            continue
        try:
            _require_callable(version)
        except RouteError as error:
            problems.append(RouteProblem(field, str(error)))
            continue
        # Fallbacks have a stricter rule, below.
        if field != "fallback_version":
            refusal = schema_gate.refusal_of(
                published, version, by=by, override=override
            )
            problems += [RouteProblem(field, refusal)] if refusal else []
    seen = {default}
    for field, version in canaries.items():
        if version in seen:
            sentence = f"{version} has a share of the calls already."
            if version == default:
                sentence = "The default cannot be a canary."
            problems.append(RouteProblem(field, sentence))
        seen.add(version)
    if default is not None and default == shadow:
        problems.append(
            RouteProblem("shadow_version", "The default cannot be the shadow.")
        )
    if default is not None and "input_rules" in changed:
        columns = column_rules.columns_of(default.metadata, default.signature)
        problems += [
            RouteProblem("input_rules", sentence)
            for sentence in metadata.check_rules(input_rules, columns=columns)
        ]
    if default is not None and fallback is not None:
        problems += _problems_of_fallback(default, fallback)
        # As at their promotion, so that no rollout is refused at its end.
        problems += [
            problem
            for field, version in canaries.items()
            if field in changed or "fallback_version" in changed
            for problem in _problems_of_fallback(version, fallback)
        ]
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


def _pass_gate(
    route: Route, version: ModelVersion, *, by: Person, override: Override | None
) -> str:
    """Return what the history keeps of the override; raise RouteError without one."""
    published = route.default_version
    refusal = schema_gate.refusal_of(published, version, by=by, override=override)
    if refusal:
        raise RouteError(refusal)
    return schema_gate.note_of(published, version, override)


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


def problem_of_weights(chosen: Sequence[Canary[ModelVersion]]) -> str:
    """Return why canaries cannot have these weights together; empty if they can."""
    if not all(0 <= canary.weight_percent <= 100 for canary in chosen):
        return "A weight is a whole number from 0 to 100."
    if len(chosen) > len(canaries.PLACES):
        return f"A route has at most {len(canaries.PLACES)} canaries. Stop one first."
    total = canaries.total(chosen)
    # A canary alone may get everything, as nothing is compared then.
    if len(chosen) > 1 and total > 99:
        shares = " and ".join(f"v{v.version} {weight} %" for v, weight in chosen)
        return (
            f"{shares} are {total} % together. Several canaries may have 99 % at most, "
            "because each is compared with the default."
        )
    return ""


def why_no_room(route: Route, version: ModelVersion, weight_percent: int) -> str:
    """Return why a canary cannot have a weight beside the others; empty if it can."""
    return problem_of_weights(_with(route, Canary(version, weight_percent)))


def _require_room(chosen: Sequence[Canary[ModelVersion]]) -> None:
    problem = problem_of_weights(chosen)
    if problem:
        raise RouteError(problem)


def _require_fitting_fallback(route: Route, version: ModelVersion) -> None:
    """Raise RouteError if the route's fallback could not answer for `version`."""
    fallback = route.fallback_version
    if fallback is None:
        return
    problems = _problems_of_fallback(version, fallback)
    if problems:
        sentences = " ".join(problem.sentence for problem in problems)
        raise RouteError(
            f"The route's fallback could not answer for {version}: {sentences} Give "
            "the route another fallback first, or none."
        )


def _locked(model: RegisteredModel) -> Route | None:
    routes = Route.objects.select_for_update(of=("self",))
    return routes.filter(registered_model=model).first()


def _locked_beside_default(version: ModelVersion, *, role: str) -> Route:
    """Lock the route in which `version` gets a role beside the default."""
    route = _locked(version.registered_model)
    if route is None:
        raise RouteError(
            f"{version.registered_model.name} has no default version yet. Make one "
            "the default first."
        )
    if route.default_version_id == version.pk:
        raise RouteError(f"{version} is the default, so it cannot be {role}.")
    return route


def _reread(route: Route) -> Route:
    """Lock the row and read it again: another person may have changed it."""
    return Route.objects.select_for_update(of=("self",)).get(pk=route.pk)


def _canary_of(route: Route, *, seen: int | None = None) -> ModelVersion:
    """Return the canary with the key `seen`; None: the only canary."""
    versions = {canary.version.pk: canary.version for canary in route.canaries}
    if not versions:
        raise RouteError(f"{route.registered_model.name} has no canary.")
    if seen is None and len(versions) == 1:
        return next(iter(versions.values()))
    if seen in versions:
        return versions[seen]
    names = " and ".join(map(str, versions.values()))
    if len(versions) == 1:
        raise RouteError(f"{names} is the canary by now. Ask again.")
    raise RouteError(f"{names} are the canaries by now. Name one of them.")


def _with(
    route: Route, canary: Canary[ModelVersion]
) -> tuple[Canary[ModelVersion], ...]:
    """Return the route's canaries with a new one, or with one's new weight."""
    weights = dict(route.canaries) | {canary.version: canary.weight_percent}
    return tuple(Canary(version, weight) for version, weight in weights.items())


def _without(route: Route, version: ModelVersion) -> list[Canary[ModelVersion]]:
    return [canary for canary in route.canaries if canary.version != version]


def _clear_shadow(route: Route) -> None:
    route.shadow_version, route.shadow_percent = None, 0


def _title(number: int | None) -> str:
    return "a deleted version" if number is None else f"v{number}"
