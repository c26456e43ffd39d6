"""Which libraries a process of a model waits for before it is forked."""

import pytest

from inference.engine import libraries
from inference.engine.wire.messages import VersionKey, VersionToLoad
from inference.engine.wire.orders import EngineOrder

TORCH, MODELS, ALL = 1, 2, 3


def order(*folders, walled=True):
    versions = tuple(
        VersionToLoad(VersionKey("risk", str(number)), str(folder), (), {})
        for number, folder in enumerate(folders)
    )
    return EngineOrder(
        name="risk", device="cpu", host_pid=1, versions=versions, walled=walled
    )


@pytest.fixture
def artifact(tmp_path):
    def make(name, requirements):
        folder = tmp_path / name
        folder.mkdir()
        if requirements is not None:
            (folder / "requirements.txt").write_bytes(requirements)
        return folder

    return make


def test_programs_wait_for_torch_alone():
    assert libraries.steps_for(order(walled=False)) == TORCH


@pytest.mark.parametrize(
    ("requirements", "steps"),
    [
        (b"mlflow==3.17.2\ntorch\n\nnumpy>=2\npandas\n", MODELS),
        (b"mlflow\nscikit-learn==1.7\n", ALL),
        (b"mlflow\nPandas\n", MODELS),
        (b"mlflow\n--index-url http://packages/\n", ALL),
        (b"mlflow\n\xff\n", ALL),
        (b"", ALL),
        (None, ALL),
    ],
)
def test_authors_code_waits_for_what_it_was_logged_with(artifact, requirements, steps):
    assert libraries.steps_for(order(artifact("one", requirements))) == steps


def test_a_group_waits_for_the_one_that_needs_most(artifact):
    little, much = artifact("one", b"mlflow\n"), artifact("two", b"xgboost\n")

    assert libraries.steps_for(order(little, much)) == ALL


def test_a_group_whose_versions_come_later_waits_for_all():
    assert libraries.steps_for(order()) == ALL


def test_what_a_process_waits_for_is_imported_by_then():
    assert "torch" in libraries.STEPS[TORCH - 1]
    assert "mlflow.pyfunc" in libraries.STEPS[MODELS - 1]
    assert "sklearn.ensemble" in libraries.STEPS[ALL - 1]
