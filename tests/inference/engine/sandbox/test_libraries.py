"""Test that the libraries of usual models work in a sandbox."""

import functools
import multiprocessing
import os
import threading
import warnings
from pathlib import Path

import msgspec
import pytest

from tests.inference.engine.sandbox.child import inside

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A scikit-learn forest as MLflow saves it."""
    # Its import warns, before a test's filter of warnings applies.
    with warnings.catch_warnings(action="ignore"):
        import mlflow.sklearn
    from sklearn.datasets import load_iris
    from sklearn.ensemble import RandomForestClassifier

    rows, labels = load_iris(return_X_y=True, as_frame=True)
    forest = RandomForestClassifier(10, random_state=0, n_jobs=2).fit(rows, labels)
    path = tmp_path_factory.mktemp("mlflow") / "model"
    mlflow.sklearn.save_model(
        forest,
        path,
        serialization_format="cloudpickle",
    )
    return path


@pytest.fixture
def with_model(rules, model):
    return msgspec.structs.replace(rules, readable=(str(model),))


def predict_with_mlflow(path):
    import mlflow.pyfunc
    import pandas as pd

    columns = ["sepal length (cm)", "sepal width (cm)"]
    columns += ["petal length (cm)", "petal width (cm)"]
    loaded = mlflow.pyfunc.load_model(path)
    rows = pd.DataFrame([[5.1, 3.5, 1.4, 0.2], [6.7, 3.0, 5.2, 2.3]], columns=columns)
    return loaded.predict(rows).tolist()


@pytest.mark.parametrize("before", [(), ("mlflow.pyfunc", "sklearn.ensemble")])
def test_a_model_of_mlflow_loads_and_predicts(with_model, model, before):
    result = inside(predict_with_mlflow, model, rules=with_model, before=before)

    assert result.error == ""
    assert result.value == [0, 2]


def forward_with_torch():
    import torch

    torch.set_num_threads(2)
    layer = torch.nn.Linear(300, 300)
    torch.nn.init.ones_(layer.weight)
    torch.nn.init.zeros_(layer.bias)
    with torch.inference_mode():
        return layer(torch.ones(300, 300))[0, 0].item()


@pytest.mark.parametrize("before", [(), ("torch",)])
def test_torch_computes(rules, before):
    assert inside(forward_with_torch, rules=rules, before=before).value == 300


def load_torch_file(scratch):
    import torch

    path = Path(scratch, "weights.pt")
    torch.save({"weight": torch.ones(2)}, path)
    return torch.load(path, mmap=True)["weight"].tolist()


def test_torch_saves_and_maps_files(rules):
    assert inside(load_torch_file, rules.scratch, rules=rules).value == [1, 1]


def use_pandas(scratch):
    import pandas as pd

    path = Path(scratch, "rows.csv")
    times = pd.date_range("2026-03-29", periods=3, freq="h", tz="Europe/Berlin")
    pd.DataFrame({"at": times, "value": [1, 2, 3]}).to_csv(path)
    return int(pd.read_csv(path)["value"].sum())


def test_pandas_reads_writes_and_knows_time_zones(rules):
    assert inside(use_pandas, rules.scratch, rules=rules).value == 6


def square(value):
    return value * value, os.getpid()


def use_joblib(backend):
    import joblib

    pairs = joblib.Parallel(n_jobs=2, backend=backend)(
        joblib.delayed(square)(value) for value in range(4)
    )
    values, processes = zip(*pairs, strict=True)
    return [list(values), os.getpid() in processes]


@pytest.mark.parametrize("before", [(), ("joblib",)])
@pytest.mark.parametrize(
    ("backend", "here"),
    [("loky", False), ("multiprocessing", False), ("threading", True)],
)
def test_joblib_works_in_parallel(rules, backend, here, before):
    result = inside(use_joblib, backend, rules=rules, before=before)

    assert result.value == [[0, 1, 4, 9], here]


def use_large_array_in_joblib():
    import joblib
    import numpy as np

    rows = np.ones(1_000_000)
    sums = joblib.Parallel(n_jobs=2)(joblib.delayed(np.sum)(rows) for _ in range(2))
    return [float(value) for value in sums]


def test_joblib_shares_large_arrays(rules):
    assert inside(use_large_array_in_joblib, rules=rules).value == [1e6, 1e6]


def use_multiprocessing():
    context = multiprocessing.get_context("spawn")
    with context.Pool(2) as pool:
        return pool.map(functools.partial(pow, 2), range(3))


def test_pools_of_processes_work(rules):
    assert inside(use_multiprocessing, rules=rules).value == [1, 2, 4]


def share_memory():
    from multiprocessing import shared_memory

    block = shared_memory.SharedMemory(create=True, size=1000)
    block.buf[0] = 7
    again = shared_memory.SharedMemory(block.name)
    value = again.buf[0]
    again.close()
    block.close()
    block.unlink()
    return value


def test_memory_is_shared_with_its_children(rules):
    assert inside(share_memory, rules=rules).value == 7


def draw():
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots()
    axes.set_title("Grüße")
    figure.savefig("figure.png")
    return Path("figure.png").stat().st_size > 1000


def test_matplotlib_draws_and_finds_fonts(rules):
    assert inside(draw, rules=rules).value is True


def explain():
    import numpy as np
    import shap

    explainer = shap.KernelExplainer(lambda rows: rows.sum(axis=1), np.zeros((1, 2)))
    return explainer.shap_values(np.array([[1.0, 2.0]]), silent=True).round(6).tolist()


def test_shap_explains(rules):
    assert inside(explain, rules=rules).value == [[1.0, 2.0]]


def compile_with_numba():
    import numba

    @numba.njit(cache=False)
    def doubled(value):
        return value * 2

    return doubled(21)


def test_numba_compiles(rules):
    assert inside(compile_with_numba, rules=rules).value == 42


def look_at_itself():
    import psutil

    process = psutil.Process()
    process.memory_full_info()
    process.open_files()
    psutil.virtual_memory()
    psutil.cpu_percent()
    return process.num_threads()


def test_psutil_looks_at_its_own_process(rules):
    assert inside(look_at_itself, rules=rules).value >= 1


def write_to_home():
    path = Path.home() / ".package" / "state"
    path.parent.mkdir()
    path.write_text("x")
    import tempfile

    with tempfile.NamedTemporaryFile() as file:
        return [str(path), file.name]


def test_a_package_writes_to_home_and_makes_temporary_files(rules):
    value = inside(write_to_home, rules=rules, before=("tempfile",)).value

    assert value[0] == f"{rules.scratch}/.package/state"
    assert value[1].startswith(f"{rules.scratch}/tmp/")


def start_many_threads():
    done = [threading.Thread(target=int) for _ in range(200)]
    for thread in done:
        thread.start()
    for thread in done:
        thread.join()
    return len(done)


def test_threads_start(rules):
    assert inside(start_many_threads, rules=rules).value == 200


def import_our_plugin():
    import explain.plugin

    return explain.plugin.__name__


def test_our_own_packages_are_imported(rules):
    assert inside(import_our_plugin, rules=rules).value == "explain.plugin"
