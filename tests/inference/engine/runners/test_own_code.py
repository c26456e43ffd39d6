import json
import sys
from concurrent.futures import ThreadPoolExecutor

import msgspec
import numpy as np
import pytest

from inference.engine.runners import own_code, runner
from inference.engine.signatures.signature import Column, Layout, Signature, Task
from inference.engine.wire.errors import EngineError
from inference.engine.wire.messages import VersionKey, VersionToLoad
from inference.engine.wire.tensors import Tensor

SIGNATURE = Signature(
    layout=Layout.MATRIX,
    columns=(Column(name="x"),),
    shape=(1,),
    task=Task.REGRESSION,
)
MLMODEL = """\
flavors:
  python_function:
    code: code
    loader_module: entrance_of_test
mlflow_version: 3.0.0
model_uuid: 00000000000000000000000000000000
utc_time_created: '2026-01-01 00:00:00.000000'
"""
ENTRANCE = """\
from package_of_test.factor import FACTOR


class Scaled:
    def predict(self, rows, params=None):
        return rows.sum(axis=1) * FACTOR


def _load_pyfunc(path):
    return Scaled()
"""


@pytest.fixture(autouse=True)
def path_as_before(monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield
    for name in [*sys.modules]:
        if "_of_test" in name:
            del sys.modules[name]


@pytest.fixture
def load(tmp_path):
    """Return a loader for versions whose code multiplies by the version number."""

    def loaded(version, *, own_file="", first_lines=""):
        folder = tmp_path / str(version)
        (folder / "code" / "package_of_test").mkdir(parents=True)
        (folder / "MLmodel").write_text(MLMODEL)
        (folder / "code" / "entrance_of_test.py").write_text(ENTRANCE)
        # A package without `__init__.py` is one, too.
        factor = folder / "code" / "package_of_test" / "factor.py"
        factor.write_text(f"{first_lines}FACTOR = {version}\n")
        if own_file:
            (folder / "code" / own_file).write_text("")
        wanted = VersionToLoad(
            key=VersionKey("scaled", version),
            path=str(folder),
            flavors=("python_function",),
            signature=msgspec.to_builtins(SIGNATURE),
            trusted=True,
        )
        return runner.load(wanted, "cpu").runner

    return loaded


def answer(of):
    (output,) = of.run((Tensor("x", np.array([[1.5]])),))
    return output.data.tolist()


@pytest.mark.filterwarnings("ignore")
def test_every_version_runs_its_own_code_whatever_the_others_named_theirs(load):
    first, second = load(1), load(2)

    assert answer(second) == [3.0]
    assert answer(first) == [1.5]


@pytest.mark.filterwarnings("ignore")
def test_versions_that_load_at_the_same_time_run_their_own_code(load):
    # While a thread waits here, others would import its module.
    slow = "import time\ntime.sleep(0.05)\n"
    with ThreadPoolExecutor(4) as threads:
        tasks = [threads.submit(load, n, first_lines=slow) for n in range(1, 5)]
        loaded = [task.result(60) for task in tasks]

    assert [answer(each) for each in loaded] == [[1.5], [3.0], [4.5], [6.0]]


def test_code_of_its_own_keeps_no_other_artifact_waiting(tmp_path):
    (tmp_path / "own" / "code").mkdir(parents=True)

    with ThreadPoolExecutor(2) as threads, own_code.alone(str(tmp_path / "own")):

        def enter(path):
            with own_code.alone(path):
                return True

        assert threads.submit(enter, str(tmp_path)).result(10)
        other = threads.submit(enter, str(tmp_path / "own"))
        with pytest.raises(TimeoutError):
            other.result(0.05)

    assert other.result(10)


@pytest.mark.filterwarnings("ignore")
def test_libraries_stay_whatever_an_artifact_names_its_code(load):
    load(1, own_file="numpy.py")

    assert sys.modules["numpy"] is np


@pytest.mark.filterwarnings("ignore")
def test_a_version_whose_code_never_runs_makes_nobody_s_forgotten(load, tmp_path):
    load(1)
    factor = sys.modules["package_of_test.factor"]
    folder = tmp_path / "untrusted"
    (folder / "code" / "package_of_test").mkdir(parents=True)
    (folder / "data").mkdir()
    (folder / "data" / "model.pt2").write_bytes(b"no program")
    program = VersionToLoad(
        key=VersionKey("program", 1),
        path=str(folder),
        flavors=("pytorch",),
        signature=msgspec.to_builtins(SIGNATURE),
    )

    with pytest.raises(EngineError):
        runner.load(program, "cpu")

    assert sys.modules["package_of_test.factor"] is factor


def test_code_named_like_a_part_of_python_harms_nobody(tmp_path):
    # A built-in module has no file.
    (tmp_path / "3" / "code").mkdir(parents=True)
    for name in ("sys.py", "time.csv", "itertools.py", "json"):
        (tmp_path / "3" / "code" / name).touch()

    own_code.forget_namesakes(str(tmp_path / "3"))

    assert sys.modules["sys"] is sys
    assert sys.modules["json"] is json
