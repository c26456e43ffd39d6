"""The states of versions are read for many at once."""

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from inference.conditions.reading import VersionStates, needs_trust
from inference.models import Engine, LoadedVersion, ModelEnvironment
from registry.models import ModelVersion
from tests.factories_jobs import make_job
from tests.factories_registry import ModelVersionFactory, RouteFactory
from tests.factories_serving import (
    EngineFactory,
    HostFactory,
    LoadedVersionFactory,
    ModelEnvironmentFactory,
    ServingRouteFactory,
    VersionConditionFactory,
    lacking,
)

pytestmark = pytest.mark.django_db


def state_of(version):
    report = VersionStates([version.registered_model.name]).of(version)
    return str(report.state), report.reason


def test_a_route_that_has_moved_serves_its_versions():
    route = RouteFactory(with_canary=True)
    ServingRouteFactory(of=route)
    engine = EngineFactory()
    for version in (route.default_version, route.canary_version):
        LoadedVersionFactory(of=version, engine=engine)

    assert state_of(route.default_version) == ("serving (default)", "")
    assert state_of(route.canary_version) == ("serving (canary)", "")


def test_a_version_that_a_route_names_is_ready_until_the_route_moves():
    route = RouteFactory()
    LoadedVersionFactory(of=route.default_version)

    assert state_of(route.default_version) == ("ready", "")


def test_the_number_of_another_model_s_version_says_nothing():
    route = RouteFactory()
    other = ModelVersionFactory(version=route.default_version.version)
    LoadedVersionFactory(of=route.default_version)
    VersionConditionFactory(of=route.default_version)

    assert state_of(other) == ("not called for", "")


def test_an_engine_that_is_away_answers_for_nobody():
    route = RouteFactory()
    ServingRouteFactory(of=route)
    engine = EngineFactory(name="cpu", state=Engine.State.UNREACHABLE)
    LoadedVersionFactory(of=route.default_version, engine=engine)

    assert state_of(route.default_version) == (
        "waiting",
        "Its engine cpu does not answer.",
    )


@pytest.mark.parametrize("role", ["default", "canary", "fallback"])
def test_routes_call_for_their_versions_unless_they_are_off(role):
    version = ModelVersionFactory()
    other = ModelVersionFactory(registered_model=version.registered_model)
    versions = {"default_version": other, f"{role}_version": version}
    route = RouteFactory(registered_model=version.registered_model, **versions)

    assert state_of(version)[0] == "waiting"
    route.enabled = False
    route.save()
    assert state_of(version)[0] == "not called for"


@pytest.mark.usefixtures("home")
def test_published_versions_and_those_of_jobs_are_called_for():
    published = ModelVersionFactory(published=True)
    of_job = ModelVersionFactory()
    make_job(model=of_job.registered_model.name, version=of_job.version)

    assert state_of(published)[0] == "waiting"
    assert state_of(of_job)[0] == "waiting"


def test_a_quarantine_says_why():
    route = RouteFactory()
    LoadedVersionFactory(of=route.default_version)
    VersionConditionFactory(of=route.default_version, reason="It died twice.")

    assert state_of(route.default_version) == ("quarantined", "It died twice.")


def test_a_released_version_is_not_quarantined():
    route = RouteFactory()
    LoadedVersionFactory(of=route.default_version)
    VersionConditionFactory(of=route.default_version, quarantined_at=None)

    assert state_of(route.default_version) == ("ready", "")


@pytest.mark.parametrize(
    ("columns", "state", "reason"),
    [
        (
            {"artifact_state": ModelVersion.ArtifactState.REMOTE},
            "waiting",
            "Its artifact is not in the local cache yet.",
        ),
        (
            {
                "artifact_state": ModelVersion.ArtifactState.FAILED,
                "artifact_error": "no such bucket",
            },
            "failed",
            "Its artifact could not be fetched: no such bucket",
        ),
        ({"serving_problem": "It needs trust."}, "failed", "It needs trust."),
        ({"metadata_errors": ["labels: 2."]}, "failed", "labels: 2."),
        (
            {
                "registered_model__trusted": True,
                "environment_fit": {"verdict": "lacks", "findings": ["It lacks x."]},
            },
            "does not fit",
            "It lacks x.",
        ),
        # It needs trust first.
        (
            {
                "serving_problem": "It needs trust.",
                "environment_fit": {"verdict": "lacks", "findings": ["It lacks x."]},
            },
            "failed",
            "It needs trust.",
        ),
        (
            {
                "registered_model__trusted": True,
                "environment_fit": {"verdict": "differs", "findings": ["x is older."]},
            },
            "waiting",
            "No engine has begun to load it.",
        ),
    ],
)
def test_what_the_registry_knows_is_the_reason(columns, state, reason):
    version = ModelVersionFactory(published=True, **columns)

    assert state_of(version) == (state, reason)


@pytest.mark.parametrize(
    ("built", "error", "state", "reason"),
    [
        ("waiting", "", "waiting", "Its environment is waiting to be built."),
        ("building", "", "waiting", "Its environment is being built."),
        (
            "failed",
            "no such package: lightgbmm",
            "does not fit",
            "Its environment could not be built: no such package: lightgbmm",
        ),
        ("ready", "", "waiting", "No engine has begun to load it."),
    ],
)
def test_an_environment_that_is_not_there_is_the_reason(built, error, state, reason):
    environment = ModelEnvironmentFactory(
        state=ModelEnvironment.State(built), error=error
    )
    # Compared with what is installed beside the engine, until it is built.
    lacks = {"verdict": "fits" if built == "ready" else "lacks", "findings": ["x"]}
    version = ModelVersionFactory(
        published=True,
        registered_model__trusted=True,
        environment=environment.digest,
        environment_fit=lacks,
    )

    assert state_of(version) == (state, reason)


def test_a_version_for_which_no_host_has_memory_does_not_fit():
    version = ModelVersionFactory(published=True)
    HostFactory(lacking=[lacking(version, "It needs 3 GB.")])

    assert state_of(version) == ("does not fit", "It needs 3 GB.")


def test_many_versions_cost_no_more_queries_than_one():
    def queries(versions):
        with CaptureQueriesContext(connection) as captured:
            states = VersionStates([v.registered_model.name for v in versions])
            for version in versions:
                states.of(version)
        return len(captured)

    environment = ModelEnvironmentFactory().digest
    versions = [
        ModelVersionFactory(published=True, environment=environment) for _ in range(5)
    ]
    for version in versions:
        LoadedVersionFactory(of=version, state=LoadedVersion.State.FAILED)

    assert queries(versions) == queries(versions[:1])


@pytest.mark.parametrize(
    ("flavors", "program", "trusted", "needs"),
    [
        (["python_function", "sklearn"], False, False, True),
        (["python_function", "sklearn"], False, True, False),
        (["python_function", "pytorch"], False, False, True),
        (["python_function", "pytorch"], True, False, False),
        ([], False, False, False),
    ],
)
def test_a_version_with_its_author_s_code_needs_trust(
    home, flavors, program, trusted, needs
):
    version = ModelVersionFactory(
        flavors=flavors,
        registered_model__trusted=trusted,
        artifact_digest=f"{flavors}{program}"[-40:].strip("[]'"),
    )
    folder = home.artifacts / version.artifact_digest / "data"
    folder.mkdir(parents=True)
    if program:
        (folder / "model.pt2").touch()

    assert needs_trust(version) is needs


def test_a_torch_model_may_need_no_trust_until_its_artifact_is_here(home):
    version = ModelVersionFactory(artifact_state="remote", artifact_digest="")

    assert not needs_trust(version)


def test_an_untrusted_version_says_so_once_it_is_called_for():
    version = ModelVersionFactory(flavors=["python_function", "sklearn"])
    states = VersionStates([version.registered_model.name])

    assert state_of(version)[0] == "not called for"
    assert states.if_called(version).state == "untrusted"
    RouteFactory(default_version=version)
    assert state_of(version)[0] == "untrusted"
