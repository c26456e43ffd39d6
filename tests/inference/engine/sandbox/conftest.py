"""Give each test a scratch folder, something to read, and a secret beside them."""

import pytest

from inference.engine.sandbox.rules import SandboxRules
from inference.installation import walls

_gaps = walls.gaps(walls.available())


def pytest_collection_modifyitems(items):
    """Skip tests of what this machine's kernel cannot do."""
    here = __name__.rpartition(".")[0]
    if not _gaps:
        return
    for item in items:
        if item.module.__name__.startswith(here):
            item.add_marker(pytest.mark.skip(reason=str(_gaps)))


@pytest.fixture
def secret(tmp_path):
    path = tmp_path / "installation" / "secret"
    path.parent.mkdir()
    path.write_text("credentials")
    return path


@pytest.fixture
def artifact(tmp_path):
    path = tmp_path / "artifact"
    path.mkdir()
    (path / "model").write_text("weights")
    return path


@pytest.fixture
def rules(tmp_path, artifact):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    return SandboxRules(scratch=str(scratch), readable=(str(artifact),))
