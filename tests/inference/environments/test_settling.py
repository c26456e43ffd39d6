import pytest

from inference.controller.callable_versions import (
    NotCallable,
    NotYetCallable,
    read_catalog,
    version_to_load,
)
from inference.environments import folders, needs, pythons, settling
from inference.environments.comparing import Installed
from inference.environments.folders import Built
from inference.models import Engine, LoadedVersion, ModelEnvironment
from registry import changes
from registry.models import ModelVersion
from tests.factories_registry import ModelVersionFactory, RegisteredModelFactory

pytestmark = pytest.mark.django_db
OLD, LACKING = ["scikit-learn==1.5.2"], ["lightgbm>=4"]


@pytest.fixture(autouse=True)
def here(monkeypatch):
    """An installation with scikit-learn 1.9."""
    installed = Installed(f"{pythons.OWN}.1", {"scikit-learn": "1.9.1"})
    monkeypatch.setattr(folders, "base", lambda: installed)


@pytest.fixture
def builds(settings):
    settings.MODELYARD_ENVIRONMENTS = "build"


def make(requirements, *, trusted=True, **fields) -> ModelVersion:
    return ModelVersionFactory(
        registered_model=RegisteredModelFactory(trusted=trusted),
        flavors=["python_function", "sklearn"],
        requirements=requirements,
        published=True,
        **fields,
    )


def settled(version: ModelVersion) -> ModelVersion:
    settling.settle([version.registered_model.name])
    version.refresh_from_db()
    return version


def own(requirements, python=pythons.OWN) -> str:
    return needs.digest(requirements, python=python)


def place(settings, digest: str, **packages: str) -> None:
    """Make an environment that is ready."""
    ModelEnvironment.objects.update_or_create(
        pk=digest, defaults={"python": pythons.OWN, "state": "ready"}
    )
    folder = settings.HOME.environments / digest
    folder.mkdir(exist_ok=True)
    folders.mark_ready(folder, Built(f"{pythons.OWN}.1", packages))


def load_in(version: ModelVersion, environment: str) -> None:
    LoadedVersion.objects.create(
        engine=Engine.objects.create(name=environment[:9], environment=environment),
        model=version.registered_model.name,
        version=version.version,
        state="ready",
    )


def to_load(version: ModelVersion, settings):
    (entry,) = read_catalog(names=[version.registered_model.name])
    return version_to_load(
        entry, entry.versions[version.version], artifacts=settings.HOME.artifacts
    )


def test_what_is_missing_here_is_refused_before_it_is_loaded(settings):
    version = settled(make(LACKING))

    assert version.environment == "base"
    assert version.environment_fit["verdict"] == "lacks"
    with pytest.raises(
        NotCallable, match=r"It needs lightgbm>=4, which is not installed\. An operator"
    ) as refusal:
        to_load(version, settings)
    assert not isinstance(refusal.value, NotYetCallable)


def test_what_only_differs_is_loaded_with_a_warning(settings):
    version = settled(make(OLD))

    assert version.environment_fit["verdict"] == "differs"
    assert version.environment_fit["findings"] == [
        "scikit-learn 1.5 was asked for, 1.9 is here."
    ]
    assert to_load(version, settings).environment == "base"


def test_requirements_do_not_matter_to_torch_programs(settings):
    version = make(LACKING, artifact_digest="e" * 64)
    version.flavors = ["python_function", "pytorch"]
    version.save()
    program = settings.HOME.artifacts / version.artifact_digest / "data" / "model.pt2"
    program.parent.mkdir(parents=True)
    program.touch()

    assert settled(version).environment_fit["verdict"] == "fits"


def test_a_version_that_works_here_is_believed(settings):
    """An upgrade must not refuse what has answered until now."""
    version = make(LACKING)
    load_in(version, "base")

    assert settled(version).environment_fit["findings"] == [
        "It needs lightgbm>=4, which is not installed.",
        "It was loaded without that.",
    ]
    assert to_load(version, settings).environment == "base"
    LoadedVersion.objects.all().delete()
    assert settled(version).environment_fit["verdict"] == "differs"


@pytest.mark.usefixtures("builds")
def test_what_does_not_fit_waits_for_an_environment_of_its_own(settings):
    version = settled(make(OLD))

    assert version.environment == own(OLD)
    for state in (None, "waiting", "building"):
        if state is not None:
            ModelEnvironment.objects.update_or_create(
                pk=own(OLD), defaults={"state": state}
            )
        with pytest.raises(NotYetCallable, match="its environment is being built"):
            to_load(version, settings)
    place(settings, own(OLD), **{"scikit-learn": "1.5.2"})
    assert to_load(settled(version), settings).environment == own(OLD)
    assert version.environment_fit["verdict"] == "fits"


@pytest.mark.usefixtures("builds")
def test_what_fits_here_stays_here():
    assert settled(make(["scikit-learn==1.9.0"])).environment == "base"


@pytest.mark.usefixtures("builds")
def test_nothing_is_built_for_models_that_nobody_trusts():
    version = settled(make(LACKING, trusted=False))

    assert (version.environment, version.environment_fit["wanted"]) == ("base", "")


@pytest.mark.usefixtures("builds")
def test_trust_settles_a_version_again():
    version = settled(make(LACKING, trusted=False))
    version.registered_model.trusted = True
    version.registered_model.save()

    changes.save(version.registered_model, by=None, reason="trusted")

    version.refresh_from_db()
    assert version.environment == own(LACKING)


@pytest.mark.usefixtures("builds")
def test_a_loaded_version_stays_until_its_environment_is_ready(settings):
    version = make(OLD)
    load_in(version, "base")

    assert settled(version).environment == "base"
    assert version.environment_fit["wanted"] == own(OLD)
    assert "being built" in version.environment_fit["findings"][-1]
    place(settings, own(OLD), **{"scikit-learn": "1.5.2"})
    assert settled(version).environment == own(OLD)


@pytest.mark.usefixtures("builds")
def test_a_failed_build_leaves_what_only_differs_here(settings):
    differing, lacking = make(OLD), make(LACKING)
    for requirements in (OLD, LACKING):
        ModelEnvironment.objects.create(
            pk=own(requirements), state="failed", error="No such package."
        )

    assert settled(differing).environment == "base"
    assert "No such package." in differing.environment_fit["findings"][-1]
    assert to_load(differing, settings).environment == "base"
    with pytest.raises(
        NotCallable, match=r"its environment could not be built\. No such package."
    ):
        to_load(settled(lacking), settings)


@pytest.mark.usefixtures("builds")
def test_a_version_uses_any_environment_that_fits(settings):
    ours = {need.partition(">")[0]: "1.0" for need in needs.ENGINE_NEEDS}
    place(settings, "f" * 64, **{**ours, "scikit-learn": "1.5.0", "lightgbm": "4.6"})

    assert settled(make([*OLD, *LACKING])).environment == "f" * 64
    # Without our own needs no engine starts in it.
    place(settings, "f" * 64, **{"scikit-learn": "1.5.0", "lightgbm": "4.6"})
    assert settled(make([*OLD, *LACKING])).environment == own([*OLD, *LACKING])


@pytest.mark.usefixtures("builds")
def test_a_python_that_is_not_installed_is_named(settings):
    version = make([], python_version="3.99.1", artifact_digest="d" * 64)
    artifact = settings.HOME.artifacts / version.artifact_digest
    artifact.mkdir()

    # Without bytecode another Python may do.
    assert settled(version).environment == "base"
    assert version.environment_fit["verdict"] == "differs"
    (artifact / "python_model.pkl").touch()
    with pytest.raises(NotCallable, match=r"python3\.99 is not installed on this"):
        to_load(settled(version), settings)


@pytest.mark.usefixtures("builds")
def test_another_python_is_used_if_it_is_installed(monkeypatch):
    monkeypatch.setattr(pythons, "obstacle", lambda minor: "")

    version = settled(make([], python_version="3.99.1"))

    assert version.environment == own([], "3.99")
    assert version.environment_fit["python"] == "3.99"


def test_an_older_python_than_engines_need_is_named():
    assert pythons.obstacle("3.9") == "engine processes need Python 3.11 or later"


def test_another_installation_settles_all_versions_again(monkeypatch):
    version = settled(make(LACKING))
    assert settling.settle_outdated() == []

    installed = Installed(pythons.OWN, {"lightgbm": "4.6.0"})
    monkeypatch.setattr(folders, "base", lambda: installed)
    monkeypatch.setattr(folders, "base_digest", lambda: "another")

    assert settling.settle_outdated() == [version.registered_model.name]
    assert settling.settle_outdated() == []
    version.refresh_from_db()
    assert version.environment_fit["verdict"] == "fits"


def test_versions_that_were_never_compared_are_settled_in_parts(monkeypatch):
    monkeypatch.setattr(settling, "_AT_ONCE", 2)
    model = RegisteredModelFactory()
    ModelVersionFactory.create_batch(5, registered_model=model)

    for left in (3, 1, 0):
        settling.settle_outdated()
        assert ModelVersion.objects.filter(environment_fit={}).count() == left
