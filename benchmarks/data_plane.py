"""Run a real gateway and a real engine, with a model that takes 5 ms for each row.

It needs no Django, database or broker: it writes the snapshot and loads the version
itself.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from accounts.admission import key_format
from accounts.admission.limits import Limits
from benchmarks.ports import free_port
from inference.engine.clients.blocking_client import BlockingEngineClient
from inference.engine.signatures.signature import Column, Layout, Signature, Task
from inference.engine.wire.errors import EngineError
from inference.engine.wire.messages import EngineStatus, VersionKey, VersionToLoad
from inference.installation.home import Home
from inference.snapshot import snapshot_file
from inference.snapshot.contents import (
    AccessCustomer,
    AccessKey,
    CallableModel,
    CallableVersion,
    EngineAddress,
    Shadow,
    Snapshot,
)
from registry.routing import Variant

ROOT = Path(__file__).resolve().parents[1]
ROW_S = 0.005
MODEL = "slow"
PATH = f"/api/v1/models/{MODEL}/predict"
BODY = b'{"instances": [{"x": 1.5}]}'
# A row that makes the model fail as a broken device does.
POISON = -666.0

_SIGNATURE = Signature(
    layout=Layout.MATRIX,
    columns=(Column(name="x"),),
    shape=(1,),
    task=Task.REGRESSION,
)
_MLMODEL = """\
flavors:
  python_function:
    code: code
    loader_module: slow_rows
    python_version: {python}
mlflow_version: 3.0.0
model_uuid: 00000000000000000000000000000000
utc_time_created: '2026-01-01 00:00:00.000000'
"""
_CODE = """\
import time


class SlowRows:
    def predict(self, rows, params=None):
        if (rows == {poison}).any():
            raise RuntimeError("CUDA error: device-side assert triggered")
        time.sleep({row_s} * len(rows))
        return rows.sum(axis=1)


def _load_pyfunc(path):
    return SlowRows()
"""


class DataPlane:
    """A gateway and an engine in a folder; `stop` ends the processes that still run."""

    def __init__(self, home: Path, **environment: str) -> None:
        self.home = Home(home)
        self.home.prepare()
        self.key = key_format.generate("live")
        # Of another customer.
        self.other_key = key_format.generate("live")
        self.port = free_port()
        self.environment = {
            **os.environ,
            "MODELYARD_HOME": str(home),
            "MODELYARD_PORT": str(self.port),
            "MODELYARD_OPERATOR_PORT": str(free_port()),
            "MODELYARD_ENGINE_PLUGINS": "",
            "MODELYARD_ENGINE_LOG_LEVEL": "warning",
            "LOG_LEVEL": "WARNING",
            **environment,
        }
        self.engine = BlockingEngineClient(self.home.engine_socket("cpu"))
        # By the module that each runs.
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self._sequence = 0

    def start_engine(self) -> "subprocess.Popen[bytes]":
        return self._start("inference.engine")

    def start_gateway(self) -> "subprocess.Popen[bytes]":
        return self._start("inference.gateway")

    def load(self, version: int = 1, *, row_s: float = ROW_S, **fields: Any) -> None:
        """Make the engine load a version, and wait until it is ready."""
        self.engine.load(self.to_load(version, row_s=row_s, **fields))
        self.wait(lambda: self._state(version) == "ready", what=f"version {version}")

    def to_load(
        self, version: int, *, row_s: float = ROW_S, **fields: Any
    ) -> VersionToLoad:
        folder = self.home.artifacts / f"slow-{version}"
        (folder / "code").mkdir(parents=True, exist_ok=True)
        python = ".".join(str(part) for part in sys.version_info[:3])
        (folder / "MLmodel").write_text(_MLMODEL.format(python=python))
        (folder / "code" / "slow_rows.py").write_text(
            _CODE.format(row_s=row_s, poison=POISON)
        )
        return VersionToLoad(
            key=VersionKey(MODEL, version),
            path=str(folder),
            flavors=("python_function",),
            signature=msgspec.to_builtins(_SIGNATURE),
            trusted=True,
            **fields,
        )

    def publish(
        self,
        default: int,
        *others: int,
        shadow: Shadow | None = None,
        canary_percent: int = 0,
    ) -> None:
        """Write a snapshot whose route has this default; the others can be named.

        With a weight, the first of the others is the canary.
        """
        self._sequence += 1
        versions = sorted({default, *others}, reverse=True)
        made = Snapshot(
            sequence=self._sequence,
            published_at=time.time(),
            models=(
                CallableModel(
                    name=MODEL,
                    versions=tuple(
                        CallableVersion(
                            version=one, signature=_SIGNATURE, engines=("cpu",)
                        )
                        for one in versions
                    ),
                    variants=_variants(default, others, canary_percent),
                    routed=True,
                    shadow=shadow,
                ),
            ),
            keys=tuple(
                AccessKey(
                    key_id=key.key_id,
                    digest=key.digest,
                    customer_id=customer_id,
                    scopes=("predict",),
                )
                for customer_id, key in enumerate((self.key, self.other_key), 1)
            ),
            customers=tuple(
                AccessCustomer(
                    customer_id=customer_id, limits=Limits(plan="free", rates=())
                )
                for customer_id in (1, 2)
            ),
            engines=(
                EngineAddress(name="cpu", address=str(self.home.engine_socket("cpu"))),
            ),
        )
        snapshot_file.write(self.home.snapshot, made)

    def wait_listening(self) -> None:
        """Wait until the engine and the gateway answer at all."""
        self.wait(self._engine_answers, what="the engine")
        self.wait(self._gateway_answers, what="the gateway")

    def status(self) -> EngineStatus | None:
        try:
            return self.engine.status()
        except EngineError:
            return None

    def wait(
        self, condition: Callable[[], bool], *, what: str, timeout_s: float = 180.0
    ) -> None:
        deadline = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() > deadline:
                raise TimeoutError(f"{what} did not come about in {timeout_s:.0f} s")
            time.sleep(0.02)

    def metric(self, name: str) -> dict[str, float]:
        """Return the gateway's numbers of a metric by the text of their labels."""
        port = self.environment["MODELYARD_OPERATOR_PORT"]
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
            lines = answer.read().decode().splitlines()
        found = (line.rsplit(" ", 1) for line in lines if line.startswith(name + "{"))
        return {labels: float(number) for labels, number in found}

    def processor_s(self) -> float:
        """Return what the gateway has used; Linux counts processor time in ticks."""
        stat = Path(f"/proc/{self.processes['inference.gateway'].pid}/stat")
        fields = stat.read_text().rpartition(") ")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def stop(self) -> None:
        self.engine.close()
        for process in self.processes.values():
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
            process.wait()

    def _state(self, version: int) -> str:
        status = self.status()
        states = (
            {one.key.version: one.state for one in status.versions} if status else {}
        )
        if states.get(version) == "failed":
            raise RuntimeError(f"version {version} was not loaded: {status}")
        return states.get(version, "")

    def _engine_answers(self) -> bool:
        self._see_all_alive()
        return self.status() is not None

    def _see_all_alive(self) -> None:
        for module, process in self.processes.items():
            if process.poll() is not None:
                raise RuntimeError(f"{module} ended by itself")

    def _gateway_answers(self) -> bool:
        self._see_all_alive()
        with contextlib.suppress(OSError):
            url = f"http://127.0.0.1:{self.port}/healthz"
            with urllib.request.urlopen(url, timeout=1):
                return True
        return False

    def _start(self, module: str) -> "subprocess.Popen[bytes]":
        process = subprocess.Popen(
            [sys.executable, "-m", module], cwd=ROOT, env=self.environment
        )
        self.processes[module] = process
        return process


def _variants(
    default: int, others: tuple[int, ...], canary_percent: int
) -> tuple[Variant, ...]:
    found = Variant(
        version=default, role="default", weight_percent=100 - canary_percent
    )
    if not canary_percent:
        return (found,)
    canary = Variant(version=others[0], role="canary", weight_percent=canary_percent)
    return (found, canary)


@contextlib.contextmanager
def running(
    home: Path, *, row_s: float = ROW_S, **environment: str
) -> Iterator[DataPlane]:
    """Yield a data plane that answers with version 1; end it afterwards."""
    plane = DataPlane(home, **environment)
    try:
        plane.publish(1)
        plane.start_engine()
        plane.start_gateway()
        plane.wait_listening()
        plane.load(1, row_s=row_s)
        yield plane
    finally:
        plane.stop()
