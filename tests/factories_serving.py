"""Make rows of hosts, engines and what they serve. Set only what the test is about."""

from datetime import UTC, datetime
from typing import Any

import factory
from django.utils import timezone
from factory.django import DjangoModelFactory

from inference.controller.rollouts import stored_sums
from inference.models import (
    Engine,
    Host,
    LoadedVersion,
    ModelEnvironment,
    Rollout,
    ServingRoute,
    VersionCondition,
    VersionEvent,
)
from registry.models import ModelVersion, Route
from registry.rules.rollout_plans import Plan
from tests.factories_registry import ModelVersionFactory

_AT = datetime(2026, 11, 30, 12, 0, tzinfo=UTC)


class HostFactory(DjangoModelFactory[Host]):
    class Meta:
        model = Host

    name = factory.Sequence(lambda n: f"host-{n}")
    devices = factory.LazyFunction(lambda: ["cpu"])
    memory_bytes = 8 * 2**30
    memory_used_bytes = 2 * 2**30
    seen_at = factory.LazyFunction(timezone.now)


def lacking(version: ModelVersion, sentence: str) -> dict[str, Any]:
    """Return what a host says of a version that does not fit, as it is stored."""
    return {
        "model": version.registered_model.name,
        "version": version.version,
        "needed_bytes": 3 * 2**30,
        "free_bytes": 2**30,
        "sentence": sentence,
        "is_placed": False,
    }


class EngineFactory(DjangoModelFactory[Engine]):
    """A running engine that was seen just now."""

    class Meta:
        model = Engine

    name = factory.Sequence(lambda n: f"engine-{n}")
    host = "host-0"
    address = factory.LazyAttribute(lambda row: f"/run/{row.name}.sock")
    state = Engine.State.RUNNING
    device = "cpu"
    pid = 4711
    seen_at = factory.LazyFunction(timezone.now)


class LoadedVersionFactory(DjangoModelFactory[LoadedVersion]):
    """A version that is ready on an engine; `of` is its row in the registry."""

    class Meta:
        model = LoadedVersion
        exclude = ["of"]

    of: ModelVersion | None = None
    engine = factory.SubFactory(EngineFactory)
    model = factory.LazyAttribute(
        lambda row: row.of.registered_model.name if row.of else "m"
    )
    version = factory.LazyAttribute(lambda row: row.of.version if row.of else 1)
    state = LoadedVersion.State.READY


class ServingRouteFactory(DjangoModelFactory[ServingRoute]):
    """What gateways serve of a route that has moved; `of` is the desired route."""

    class Meta:
        model = ServingRoute
        exclude = ["of"]

    of: Route | None = None
    model = factory.LazyAttribute(lambda row: row.of.registered_model.name)
    default_version = factory.LazyAttribute(lambda row: row.of.default_version.version)
    canary_version = factory.LazyAttribute(
        lambda row: row.of.canary_version and row.of.canary_version.version
    )
    default_weight_percent = factory.LazyAttribute(
        lambda row: row.of.default_weight_percent
    )
    canary_weight_percent = factory.LazyAttribute(
        lambda row: row.of.canary_weight_percent
    )


class _OfVersionFactory(DjangoModelFactory):
    class Meta:
        abstract = True
        exclude = ["of"]

    of: ModelVersion | None = None
    model = factory.LazyAttribute(
        lambda row: row.of.registered_model.name if row.of else "m"
    )
    version = factory.LazyAttribute(lambda row: row.of.version if row.of else 1)


class VersionEventFactory(_OfVersionFactory):
    class Meta:
        model = VersionEvent

    kind = VersionEvent.Kind.FAILURE
    at = _AT
    text = "ValueError: the model cannot read this row"


class VersionConditionFactory(_OfVersionFactory):
    """The condition of a quarantined version."""

    class Meta:
        model = VersionCondition

    quarantined_at = _AT
    reason = "Its process died twice within ten minutes."


class ModelEnvironmentFactory(DjangoModelFactory[ModelEnvironment]):
    class Meta:
        model = ModelEnvironment

    digest = factory.Sequence(lambda n: f"{n:064x}")
    python = "3.11"
    requirements = factory.LazyFunction(lambda: ["lightgbm==4.6.0"])
    state = ModelEnvironment.State.READY


class RolloutFactory(DjangoModelFactory[Rollout]):
    """A rollout without calls, by the usual plan."""

    class Meta:
        model = Rollout

    version = factory.SubFactory(ModelVersionFactory)
    registered_model = factory.SelfAttribute("version.registered_model")
    default_version = factory.SubFactory(
        ModelVersionFactory,
        registered_model=factory.SelfAttribute("..registered_model"),
    )
    plan = factory.LazyFunction(lambda: stored_sums.as_json(Plan()))
    sums = factory.LazyFunction(
        lambda: stored_sums.as_json(stored_sums.counter_of(Plan()).start())
    )
    weight_percent = 1
    started_at = factory.LazyFunction(timezone.now)
