"""People ask that a version is loaded again, or released from quarantine."""

from datetime import UTC, datetime

import pytest

from inference.conditions import requests
from inference.conditions.requests import RequestRefused
from inference.models import (
    LoadedVersion,
    SnapshotChange,
    VersionCondition,
    VersionEvent,
)
from registry.models import ModelVersion
from tests.factories import UserFactory
from tests.factories_registry import ModelVersionFactory, RouteFactory
from tests.factories_serving import LoadedVersionFactory, VersionConditionFactory

pytestmark = pytest.mark.django_db

NOW = datetime(2026, 12, 1, 8, 30, tzinfo=UTC)


def marked():
    return list(SnapshotChange.objects.values_list("kind", "name"))


def failed_version():
    version = RouteFactory().default_version
    failed = LoadedVersion.State.FAILED
    LoadedVersionFactory(of=version, state=failed, error="no room")
    return version


def test_a_failed_version_is_loaded_again_at_once():
    version, person = failed_version(), UserFactory()

    requests.load_again(version, by=person, now=NOW)

    condition = VersionCondition.objects.get()
    assert (condition.model, condition.version) == (
        version.registered_model.name,
        version.version,
    )
    assert (condition.load_again_at, condition.asked_by) == (NOW, person)
    # The controller looks at once, not at its next round.
    assert marked() == [("model", version.registered_model.name)]


def test_asking_again_moves_the_time_and_keeps_the_rest():
    version = failed_version()
    kept = VersionConditionFactory(of=version, quarantined_at=None, slow_since=NOW)

    requests.load_again(version, by=UserFactory(), now=NOW)

    kept.refresh_from_db()
    assert (kept.load_again_at, kept.slow_since) == (NOW, NOW)


def test_a_version_with_one_failed_process_is_loaded_again_there():
    version = failed_version()
    LoadedVersionFactory(of=version)

    requests.load_again(version, by=UserFactory(), now=NOW)

    assert VersionCondition.objects.get().load_again_at == NOW


def uncalled():
    return ModelVersionFactory()


def ready():
    version = RouteFactory().default_version
    LoadedVersionFactory(of=version)
    return version


def quarantined():
    version = RouteFactory().default_version
    VersionConditionFactory(of=version)
    return version


def unfetched():
    failed = ModelVersion.ArtifactState.FAILED
    return RouteFactory(default_version__artifact_state=failed).default_version


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (uncalled, "Nothing calls for"),
        (ready, "nothing failed to load"),
        (quarantined, "release it instead"),
        (unfetched, "fetch it first"),
    ],
)
def test_what_cannot_help_is_refused_with_what_would(make, sentence):
    version = make()

    with pytest.raises(RequestRefused, match=sentence):
        requests.load_again(version, by=UserFactory(), now=NOW)

    assert marked() == []


def test_a_release_ends_the_quarantine_and_is_told():
    version = RouteFactory().default_version
    condition = VersionConditionFactory(of=version)
    person = UserFactory(username="grace")

    requests.release(
        version, by=person, now=NOW, seen=condition.quarantined_at.isoformat()
    )

    condition.refresh_from_db()
    assert (condition.quarantined_at, condition.reason) == (None, "")
    assert (condition.released_at, condition.asked_by) == (NOW, person)
    event = VersionEvent.objects.get()
    assert (event.kind, event.at) == ("released", NOW)
    assert event.text == "grace released it from quarantine."
    assert marked() == [("model", version.registered_model.name)]


def test_a_version_that_somebody_released_meanwhile_is_not_released_again():
    version = RouteFactory().default_version
    condition = VersionConditionFactory(of=version)
    seen = condition.quarantined_at.isoformat()
    requests.release(version, by=UserFactory(), now=NOW, seen=seen)

    with pytest.raises(RequestRefused, match="is not quarantined"):
        requests.release(version, by=UserFactory(), now=NOW, seen=seen)

    assert VersionEvent.objects.count() == 1


def test_a_later_quarantine_than_the_one_that_was_read_about_stays():
    version = RouteFactory().default_version
    condition = VersionConditionFactory(of=version)
    seen = condition.quarantined_at.isoformat()
    condition.quarantined_at = NOW
    condition.save()

    with pytest.raises(RequestRefused, match="again since you asked"):
        requests.release(version, by=UserFactory(), now=NOW, seen=seen)

    condition.refresh_from_db()
    assert condition.quarantined_at == NOW


def test_an_untrusted_version_is_not_loaded_again():
    version = ModelVersionFactory(flavors=["python_function", "sklearn"])
    RouteFactory(default_version=version)

    with pytest.raises(requests.RequestRefused, match="must trust its model first"):
        requests.load_again(version, by=None, now=NOW)
