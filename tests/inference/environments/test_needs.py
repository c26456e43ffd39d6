import subprocess
import sys

import pytest

from inference.environments import needs
from inference.environments.needs import ENGINE_NEEDS

OURS = list(ENGINE_NEEDS)


@pytest.mark.parametrize(
    ("asked", "installed"),
    [
        ([], ["mlflow-skinny>=2.13"]),
        (["mlflow==3.17.2", "lightgbm"], ["mlflow-skinny==3.17.2", "lightgbm"]),
        (["mlflow==2.14.1"], ["mlflow-skinny==2.14.1", "setuptools<81"]),
        (
            ["mlflow==2.14.1", "setuptools==70"],
            ["mlflow-skinny==2.14.1", "setuptools==70"],
        ),
        # Too old for our runner; each MLflow reads older artifacts.
        (["mlflow==2.3.1"], ["mlflow-skinny>=2.13"]),
        (["mlflow<3"], ["mlflow-skinny>=2.13"]),
        (["mlflow-skinny==3.1"], ["mlflow-skinny==3.1"]),
        # Only the whole of it has extras.
        (["mlflow[gateway]==3.1"], ["mlflow[gateway]==3.1"]),
        (["# -r: no other file is read.", "a"], ["a", "mlflow-skinny>=2.13"]),
    ],
)
def test_our_few_needs_come_on_top(asked, installed):
    assert needs.to_install(asked) == installed + OURS


def test_equal_requirements_share_an_environment():
    one = needs.digest(["a==1", "b"], python="3.11")

    assert needs.digest(["b", "a==1"], python="3.11") == one
    assert needs.digest(["b", "a==1", "# -r: no other file"], python="3.11") == one
    assert needs.digest(["b", "a==2"], python="3.11") != one
    assert needs.digest(["b", "a==1"], python="3.12") != one
    assert len(one) == 64


# Hides what other distributions bring.
_IMPORTS = """
import sys
from importlib.metadata import packages_distributions

class Hidden:
    found = packages_distributions()
    needed = {"modelyard", *sys.argv[1:]}

    def find_spec(self, name, *_):
        brought_by = set(self.found.get(name.partition(".")[0], ()))
        if brought_by and not brought_by & self.needed:
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Hidden())
import inference.engine.__main__, inference.engine.runners.runner
assert "torch" not in sys.modules
"""


def test_an_engine_starts_with_nothing_else():
    names = [need.partition(">")[0] for need in ENGINE_NEEDS]

    subprocess.run([sys.executable, "-c", _IMPORTS, *names], check=True)
