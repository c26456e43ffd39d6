"""Measure what one model's trouble costs another: `python -m benchmarks.isolation`.

A whole Modelyard, as `make run` sets it up, answers the demo's model over 16
connections: alone, and beside models that sleep 0.3 s a row under 8 batches of 256
rows, burn a core, die every 5 s, or load for 40 s. Each round with trouble is between
two rounds alone; the ratio is of its 99th percentile to theirs. Then it prints how soon
a fresh process of a Python model answers, and the memory of 50 small scikit-learn
models.
"""

import argparse
import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil

from benchmarks import load, modelyard
from benchmarks.load import Measured
from benchmarks.modelyard import ROOT, Running
from inference.installation.home import Home
from inference.placement import plan_file, report_file
from inference.placement.processes import HostReport

_CONNECTIONS = 16
_DIE_EVERY_S = 5.0
_BATCHES, _ROWS = 8, 256
_MANY = 50
_LOG = """
import json, sys, warnings
import mlflow
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, Schema
warnings.simplefilter("ignore")
uri, root, models = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
mlflow.set_tracking_uri(uri)
if mlflow.get_experiment_by_name("isolation") is None:
    mlflow.create_experiment("isolation", root)
mlflow.set_experiment("isolation")
schema = Schema([ColSpec("double", "x")])
for name, config in models.items():
    if config.get("sklearn"):
        import numpy, pandas
        from sklearn.linear_model import LinearRegression
        rows = pandas.DataFrame({"x": numpy.arange(10.0)})
        logged = mlflow.sklearn.log_model(
            LinearRegression().fit(rows, rows["x"] * 2), name="model",
            registered_model_name=name, input_example=rows[:3],
            signature=ModelSignature(schema, Schema([ColSpec("double", "y")])),
            serialization_format="cloudpickle", pip_requirements=["scikit-learn"],
        )
    else:
        logged = mlflow.pyfunc.log_model(
            name="model", python_model="benchmarks/isolation_model.py",
            model_config=config, registered_model_name=name,
            signature=ModelSignature(schema, Schema([ColSpec("double", "y")])),
            pip_requirements=["mlflow"],
            metadata={"modelyard": {"process": {"max_run_s": 600}}},
        )
    mlflow.MlflowClient().set_registered_model_alias(
        name, "champion", logged.registered_model_version
    )
"""
_TRUST = """
from registry import sync_run
from registry.models import RegisteredModel
RegisteredModel.objects.filter(name__startswith="isolation").update(trusted=True)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=10, help="of each round")
    parser.add_argument("--many", type=int, default=_MANY, help="models at once")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        home = Path(folder) / "home"
        with modelyard.running(home, Path(folder) / "modelyard.log") as running:
            _add(
                running,
                {
                    "isolation-sleep": {"deed": "sleep", "load_s": 0.0},
                    "isolation-burn": {"deed": "burn", "load_s": 0.0},
                    "isolation-die": {"deed": "die", "load_s": 0.0},
                },
            )
            for title, trouble in (
                ("beside one that sleeps", _sleeping),
                ("beside one that burns a core", _burning),
                ("beside one that dies", _dying),
                ("beside one that loads", _loading),
            ):
                _compare(running, title, trouble, arguments.seconds)
            _restart(running)
            _fill(running, arguments.many)


def _add(running: Running, models: dict[str, Any], *, wait: bool = True) -> None:
    """Register models, trust them, and wait until they answer."""
    uri = running.demo["mlflow_tracking_uri"]
    subprocess.run(
        (
            *(sys.executable, "-c", _LOG, uri),
            *(str(running.home / "isolation-artifacts"), json.dumps(models)),
        ),
        cwd=ROOT,
        check=True,
    )
    running.manage("sync_registry")
    running.manage("shell", "-c", _TRUST)
    running.manage("sync_registry")
    deadline = time.monotonic() + 600
    for name in models if wait else ():
        while not _answers(running, name):
            assert time.monotonic() < deadline, f"{name} does not answer"
            time.sleep(0.1)


def _answers(running: Running, name: str) -> bool:
    with contextlib.suppress(httpx.HTTPError):
        return _call(running, name, 0.0 if name.endswith("sleep") else 1.0) == 200
    return False


def _call(running: Running, name: str, x: float, rows: int = 1) -> int:
    operation = "predict" if rows == 1 else "batch"
    response = httpx.post(
        f"{running.demo['base_url']}/api/v1/models/{name}/{operation}",
        json={"instances": [{"x": x}] * rows},
        headers={"Authorization": f"Bearer {running.demo['bench_api_key']}"},
        timeout=60,
    )
    return response.status_code


@contextlib.contextmanager
def _repeating(*actions: Callable[[threading.Event], object]) -> Iterator[None]:
    """Do each again and again in a thread of its own while the block runs."""
    over = threading.Event()

    def work(action: Callable[[threading.Event], object]) -> None:
        while not over.is_set():
            with contextlib.suppress(httpx.HTTPError):
                action(over)

    threads = [
        threading.Thread(target=work, args=(each,), daemon=True) for each in actions
    ]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()


def _sleeping(running: Running) -> contextlib.AbstractContextManager[None]:
    def ask(over: threading.Event) -> None:
        if _call(running, "isolation-sleep", 1.0, _ROWS) != 200:
            over.wait(1.0)  # as the refusal says

    return _repeating(*[ask] * _BATCHES)


def _burning(running: Running) -> contextlib.AbstractContextManager[None]:
    return _repeating(lambda _: _call(running, "isolation-burn", 1.0))


def _dying(running: Running) -> contextlib.AbstractContextManager[None]:
    def die(over: threading.Event) -> None:
        _call(running, "isolation-die", 4711.0)
        _release(running, "isolation-die")
        over.wait(_DIE_EVERY_S)

    return _repeating(die)


def _release(running: Running, model: str) -> None:
    """End a quarantine: it dies for as long as the round lasts."""
    running.manage(
        "shell",
        "-c",
        f"""
from django.utils import timezone
from inference.controller import publishing
from inference.models import VersionCondition
VersionCondition.objects.update_or_create(
    model={model!r}, version=1,
    defaults={{"quarantined_at": None, "reason": "", "released_at": timezone.now()}},
)
publishing.mark_changed(publishing.Kind.MODEL, [{model!r}])
""",
    )


@contextlib.contextmanager
def _loading(running: Running) -> Iterator[None]:
    name = f"isolation-load-{time.time_ns()}"
    _add(running, {name: {"deed": "", "load_s": 40.0}}, wait=False)
    yield


def _compare(
    running: Running,
    title: str,
    trouble: Callable[[Running], contextlib.AbstractContextManager[None]],
    seconds: int,
) -> None:
    def measure() -> Measured:
        return load.run(running.target(1), connections=_CONNECTIONS, seconds=seconds)

    before = measure()
    with trouble(running):
        time.sleep(1)
        beside = measure()
    time.sleep(2)
    after = measure()
    alone_ms = statistics.mean([before.p99_ms, after.p99_ms])
    failures = before.failures + beside.failures + after.failures
    print(
        f"{title}: p99 {beside.p99_ms:.2f} ms, alone {before.p99_ms:.2f} and "
        f"{after.p99_ms:.2f} ms: {beside.p99_ms / alone_ms:.2f} ×; "
        f"{beside.requests_per_s:.0f} requests a second, alone "
        f"{before.requests_per_s:.0f} and {after.requests_per_s:.0f}; "
        f"{failures} failed",
        flush=True,
    )


def _host(running: Running) -> HostReport:
    report = report_file.read(Home(running.home).host_report)
    assert report is not None
    return report


def _restart(running: Running) -> None:
    """Print how soon a Python model answers again after its process was killed."""
    model, took = "isolation-burn", []
    plan = plan_file.read(Home(running.home).host_plan)
    assert plan is not None
    [name] = [
        one.name
        for one in plan.processes
        if any(version.key.model == model for version in one.versions)
    ]
    for _ in range(5):
        [pid] = [one.pid for one in _host(running).processes if one.name == name]
        psutil.Process(pid).kill()
        began = time.monotonic()
        while _call(running, model, 0.0) != 200:
            time.sleep(0.01)
        took.append(time.monotonic() - began)
        _release(running, model)
        time.sleep(2)
    print(
        f"the first call after a kill: {statistics.median(took):.2f} s (median of 5)",
        flush=True,
    )


def _fill(running: Running, count: int) -> None:
    """Print the memory of many small scikit-learn models."""
    known = {one.name for one in _host(running).processes}
    free = psutil.virtual_memory().available
    models = {f"isolation-many-{number}": {"sklearn": True} for number in range(count)}
    began = time.monotonic()
    _add(running, models)
    took = time.monotonic() - began
    used = free - psutil.virtual_memory().available
    each = [
        _own_bytes(one.pid)
        for one in _host(running).processes
        if one.name not in known and one.pid
    ]
    print(
        f"{count} small scikit-learn models: {used / 1e9:.2f} GB of the machine's "
        f"memory, {statistics.median(each) / 1e6:.0f} MB that a process shares with "
        f"nobody (median of {len(each)}); registered and ready after {took:.0f} s"
    )


def _own_bytes(pid: int) -> int:
    return int(psutil.Process(pid).memory_full_info().uss)


if __name__ == "__main__":
    main()
