"""Run a real host with models of one's own."""

import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from inference.engine.clients.blocking_client import BlockingEngineClient
from inference.engine.signatures.signature import Column, Layout, Signature
from inference.engine.wire.calls import PredictionCall
from inference.engine.wire.errors import EngineError
from inference.engine.wire.messages import ProcessRules, VersionKey, VersionToLoad
from inference.engine.wire.tensors import Tensor
from inference.installation.home import Home
from inference.placement import plan_file, report_file
from inference.placement.processes import (
    Death,
    EngineProcess,
    HostPlan,
    HostReport,
    ProcessReport,
    process_name,
)
from tests.waiting import wait_until

ROOT = Path(__file__).resolve().parents[3]
_SIGNATURE = Signature(layout=Layout.TABLE, columns=(Column("do", dtype="str"),))


def save_model(folder: Path, *, at_load: str = "") -> Path:
    """Save the hostile model as an MLflow artifact."""
    import mlflow
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema

    schema = Schema([ColSpec("string", "do")])
    with warnings.catch_warnings():
        # MLflow's advice to use type hints and an example.
        warnings.simplefilter("ignore")
        mlflow.pyfunc.save_model(
            folder,
            python_model=str(Path(__file__).with_name("hostile_models.py")),
            model_config={"at_load": ""},
            signature=ModelSignature(
                inputs=schema, outputs=Schema([ColSpec("string", "did")])
            ),
            pip_requirements=["mlflow"],
        )
    # Not before, because MLflow runs the model's code when it saves it.
    described = folder / "MLmodel"
    text = described.read_text()
    assert "at_load: ''" in text
    described.write_text(text.replace("at_load: ''", f"at_load: {at_load!r}"))
    return folder


def version(folder: Path, name: str, **rules: Any) -> VersionToLoad:
    return VersionToLoad(
        key=VersionKey(name, 1),
        path=str(folder),
        flavors=("python_function",),
        signature=msgspec.to_builtins(_SIGNATURE),
        trusted=True,
        process=ProcessRules(**rules),
    )


def own_process(version: VersionToLoad, **values: Any) -> EngineProcess:
    """Give a version a process of its own."""
    return EngineProcess(
        name=process_name(version),
        device="cpu",
        kind="own",
        versions=(version,),
        max_run_s=version.process.max_run_s,
        memory_limit_bytes=version.process.memory_mb * 1024 * 1024,
        **values,
    )


class Plant:
    """A host in a folder of its own; `close` ends it."""

    def __init__(self, folder: Path, **settings: str) -> None:
        self.home = Home(folder)
        self.home.prepare()
        self._processes: dict[str, EngineProcess] = {}
        self._settings = settings
        self.host = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        self._log = (self.home.logs / "host.log").open("ab")
        return subprocess.Popen(
            [sys.executable, "-m", "inference.host", "--devices", "cpu"],
            cwd=ROOT,
            env=os.environ
            | {"MODELYARD_HOME": str(self.home.root), "MODELYARD_ENGINE_PLUGINS": ""}
            | self._settings,
            stdout=self._log,
            stderr=self._log,
        )

    def restart_host(self) -> None:
        """Kill the host, and start another one, as its supervisor does."""
        self.host.kill()
        self.host.wait()
        self._log.close()
        self.host = self._start()

    def place(self, *versions: VersionToLoad, **values: Any) -> None:
        """Add processes of their own to the plan."""
        for each in versions:
            process = own_process(each, **values)
            self._processes[process.name] = process
        self.write()

    def remove(self, version: VersionToLoad) -> None:
        del self._processes[process_name(version)]
        self.write()

    def write(self) -> None:
        plan = HostPlan(processes=tuple(self._processes.values()))
        plan_file.write(self.home.host_plan, plan)

    def report(self) -> HostReport:
        found = report_file.read(self.home.host_report)
        assert found is not None
        return found

    def process(self, version: VersionToLoad) -> ProcessReport:
        """Return the report on a version's process, once there is one."""
        name, found = process_name(version), []

        def is_reported() -> bool:
            found[:] = [it for it in self.report().processes if it.name == name]
            return bool(found)

        wait_until(is_reported)
        return found[0]

    def pid(self, version: VersionToLoad) -> int:
        """Return the id of a version's process, once it runs."""
        wait_until(lambda: self.process(version).pid)
        return self.process(version).pid

    def deaths(self, version: VersionToLoad) -> list[Death]:
        return [one for one in self.report().deaths if one.version == version.key]

    def client(self, version: VersionToLoad) -> BlockingEngineClient:
        return BlockingEngineClient(self.home.engine_socket(process_name(version)))

    def wait_ready(self, version: VersionToLoad) -> None:
        client = self.client(version)

        def ready() -> bool:
            try:
                status = client.status()
            except EngineError:
                return False
            states = [one.state for one in status.versions]
            assert states != ["failed"], status.versions[0].error
            return states == ["ready"]

        wait_until(ready)
        client.close()

    def ask(
        self, version: VersionToLoad, *do: str, timeout_s: float = 60.0
    ) -> list[str]:
        """Predict; each row says what the model does. Raises EngineError."""
        client = self.client(version)
        rows = Tensor("do", np.array(do, dtype=object))
        try:
            answer = client.predict(PredictionCall(version.key, (rows,), timeout_s))
        finally:
            client.close()
        return list(answer.tensors[0].data)

    def close(self) -> None:
        self.host.send_signal(signal.SIGTERM)
        self.host.wait(30)
        self._log.close()


class Caller(threading.Thread):
    """Call a model all the time, and keep each failure and the slowest answer."""

    def __init__(self, plant: Plant, version: VersionToLoad) -> None:
        super().__init__(daemon=True)
        self._client = plant.client(version)
        self._key = version.key
        self._over = threading.Event()
        self.calls = 0
        self.failures: list[str] = []
        self.slowest_s = 0.0

    def run(self) -> None:
        rows = (Tensor("do", np.array(["answer"], dtype=object)),)
        while not self._over.is_set():
            began = time.monotonic()
            try:
                self._client.predict(PredictionCall(self._key, rows, 30.0))
            except EngineError as error:
                self.failures.append(f"{error.code}: {error.message}")
            self.calls += 1
            self.slowest_s = max(self.slowest_s, time.monotonic() - began)
            time.sleep(0.005)

    def __enter__(self) -> "Caller":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self.join()
        self._client.close()
