"""Refuse versions that would break the callers of what a route has published."""

import functools
import operator
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

from django.contrib.auth.models import PermissionsMixin

from registry import signals
from registry.changes import Person
from registry.models import ModelVersion, RegisteredModel, Route
from registry.rules import contracts, optional_inputs, schema_changes
from registry.rules.contracts import Contract
from registry.rules.schema_changes import Change
from registry.signals import Callers

PERMISSION = "registry.override_schema"
MOST_REASON = 1000
# What the contract of a version is made of.
_CONTRACT = ("signature", "metadata", "metadata_errors")


@dataclass(frozen=True, slots=True)
class Override:
    """Break callers on purpose; the route's history keeps the reason."""

    reason: str
    # The differences for which a person with the permission gave it, when a rollout
    # began; it holds for no others. None: it is given now.
    allowed: frozenset[str] | None = None


def contract_of(version: ModelVersion) -> Contract:
    """Return what `version` promises its callers.

    Metadata with errors may be of any shape, so nothing is read from it.
    """
    metadata = {} if version.metadata_errors else version.metadata
    return contracts.contract_of(metadata, version.signature)


def published_contracts() -> dict[str, Contract]:
    """Return what each route that is on promises callers, by the name of its model."""
    routes = Route.objects.filter(enabled=True).select_related(
        "registered_model", "default_version"
    )
    return {
        route.registered_model.name: contract_of(route.default_version)
        for route in routes
    }


def changes_between(
    published: ModelVersion | None, version: ModelVersion
) -> list[Change]:
    """Return what callers of a route's default would notice of `version`."""
    if published is None or published.pk == version.pk:
        return []
    return schema_changes.compare(contract_of(published), contract_of(version))


def breaking_between(
    published: ModelVersion | None, version: ModelVersion
) -> list[str]:
    """Return what would break callers of a route's default, in sentences."""
    return _breaking(changes_between(published, version))


def callers_of(version: ModelVersion, changes: Iterable[Change]) -> Callers:
    """Return the keys of the last 30 days that breaking changes may concern.

    If all of them concern optional inputs, these are the keys that used one of those.
    """
    model = version.registered_model
    optional = {change.optional for change in changes if change.level == "breaking"}
    using = None if "" in optional else _bits(model, optional)
    answers = signals.callers_wanted.send(
        sender=ModelVersion, model=model.name, using=using
    )
    found: Any = [answer for _, answer in answers]
    return found[0] if found else Callers()


def _bits(model: RegisteredModel, names: Collection[str]) -> dict[str, int]:
    """Return by version the bits by which gateways note that it got these inputs.

    Without versions that require one of them: all their callers sent it.
    """
    found = {}
    for version in model.versions.only("version", *_CONTRACT):
        contract = contract_of(version)
        if any(field.required and field.name in names for field in contract.columns):
            continue
        bits = optional_inputs.bits_of_contract(contract)
        asked = [bit for name, bit in bits.items() if name in names]
        found[str(version.version)] = functools.reduce(operator.or_, asked, 0)
    return found


def may_override(person: Person) -> bool:
    return isinstance(person, PermissionsMixin) and person.has_perm(PERMISSION)


def refusal_of(
    published: ModelVersion | None,
    version: ModelVersion,
    *,
    by: Person,
    override: Override | None,
) -> str:
    """Return why `version` may not get calls of the route; empty if it may."""
    changes = changes_between(published, version)
    breaking = _breaking(changes)
    if not breaking:
        return ""
    if override is None or not override.reason.strip():
        remedy = (
            "Say why, if you want to break callers all the same."
            if may_override(by)
            else "A person who may override the schema gate can do it with a reason."
        )
    elif override.allowed is not None:
        if override.allowed.issuperset(breaking):
            return ""
        remedy = (
            "The reason that was given holds for other differences. End the rollout, "
            "and start another one."
        )
    elif may_override(by):
        return ""
    else:
        remedy = "You may not override this."
    sentences = [
        f"{version} would break callers of v{published.version}, the default.",  # type: ignore[union-attr]  # it has changes
        *breaking,
    ]
    if by is not None:
        # A machine asks again each minute, and adding up 30 days of usage takes long.
        sentences.append(callers_of(version, changes).sentence)
    return " ".join([*sentences, remedy])


def note_of(
    published: ModelVersion | None, version: ModelVersion, override: Override | None
) -> str:
    """Return what the history adds about an override that was needed; else nothing."""
    if override is None or not breaking_between(published, version):
        return ""
    return f"; callers of v{published.version} may break: {override.reason.strip()}"  # type: ignore[union-attr]  # it has changes


def _breaking(changes: Iterable[Change]) -> list[str]:
    return [change.sentence for change in changes if change.level == "breaking"]
