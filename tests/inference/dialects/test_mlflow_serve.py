"""The same requests to `mlflow models serve` and to us, answer by answer."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import httpx
import msgspec
import pytest
import yaml

from accounts.limits import Limits
from benchmarks.ports import free_port
from inference.dialects.dialect import Finished
from inference.dialects.mlflow_scoring import MLFLOW
from inference.effects import Call
from inference.engine import runner
from inference.engine.client import Prediction
from inference.engine.messages import VersionKey, VersionToLoad
from inference.engine.mlflow_signature import from_mlflow
from inference.errors import ApiError
from inference.snapshot import CallableModel, CallableVersion
from inference.tables import Target
from tests.inference.dialects import mlflow_models
from tests.inference.dialects.mlflow_corpus import QUESTIONS, Question

pytestmark = pytest.mark.processes

BIN = Path(sys.executable).parent
LIMITS = Limits(plan="p", rates=())
START_TIMEOUT_S = 200
SAVE = {
    "table": mlflow_models.save_table,
    "tensor": mlflow_models.save_tensor,
    "text": mlflow_models.save_text,
}
# What docs/protocols.md says about them: here we answer, and MLflow's model fails.
ONLY_OURS = {("table", "split without the optional column")}


class Reply(NamedTuple):
    status: int
    body: bytes


class OurAnswers:
    """The dialect with the engine's own runner, without a socket in between."""

    def __init__(self, name: str, path: Path) -> None:
        described = yaml.safe_load((path / "MLmodel").read_text())
        signature = from_mlflow(
            {
                part: json.loads(text) if text else None
                for part, text in described["signature"].items()
                if part in ("inputs", "outputs", "params")
            }
        )
        version = VersionToLoad(
            key=VersionKey(name, 1),
            path=str(path),
            flavors=tuple(described["flavors"]),
            signature=msgspec.to_builtins(signature),
            trusted=True,
        )
        self._runner = runner.load(version, "cpu").runner
        callable_version = CallableVersion(version=1, signature=signature)
        model = CallableModel(name=name, versions=(callable_version,))
        self._target = Target(model, callable_version, variant="default")

    def ask(self, question: Question) -> Reply:
        headers = {b"content-type": question.content_type.encode()}
        call = Call("batch", headers, MLFLOW)
        try:
            MLFLOW.prepare(call)
            decoded = MLFLOW.decode(call, self._target, question.body, LIMITS)
        except ApiError as error:
            status, _, body = MLFLOW.render(call, error, request_id="r", now=0.0)
            return Reply(status, body)
        tensors = runner.run(self._runner, decoded.tensors, decoded.params)
        prediction = Prediction(tensors, 0, 0, decoded.rows)
        finished = Finished(call, "r", self._target, decoded, prediction, None)
        return Reply(200, MLFLOW.encode(finished)[1])


@pytest.fixture(scope="module")
def servers(tmp_path_factory):
    """Start one `mlflow models serve` per model; gives their models and addresses."""
    folder = tmp_path_factory.mktemp("models")
    environment = os.environ | {"PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}
    processes, addresses = [], {}
    try:
        for name, save in SAVE.items():
            save(folder / name)
            port = free_port()
            addresses[name] = f"http://127.0.0.1:{port}"
            command = [BIN / "mlflow", "models", "serve", "--env-manager", "local"]
            command += ["-m", folder / name, "-p", str(port), "-w", "1"]
            processes.append(
                subprocess.Popen(
                    command,
                    env=environment,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                )
            )
        deadline = time.monotonic() + START_TIMEOUT_S
        for address in addresses.values():
            while not is_up(address):
                assert time.monotonic() < deadline, "mlflow did not start"
                time.sleep(0.2)
        yield folder, addresses
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait(30)


def is_up(address: str) -> bool:
    try:
        return httpx.get(f"{address}/ping", timeout=5).status_code == 200
    except httpx.TransportError:
        return False


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", SAVE)
def test_answers_are_those_of_mlflow_models_serve(name, servers):
    folder, addresses = servers
    ours = OurAnswers(name, folder / name)
    different = []

    with httpx.Client(base_url=addresses[name]) as client:
        for question in QUESTIONS[name]:
            theirs = client.post(
                "/invocations",
                content=question.body,
                headers={"content-type": question.content_type},
            )
            reply = ours.ask(question)
            if (name, question.name) in ONLY_OURS:
                assert (reply.status, theirs.status_code) == (200, 400)
            elif not same(reply, theirs):
                different.append((question.name, reply, theirs.text[:200]))

    assert different == []


def same(reply: Reply, theirs: httpx.Response) -> bool:
    if reply.status != theirs.status_code:
        return False
    answer = json.loads(reply.body)
    if reply.status == 200:
        return answer == theirs.json()
    return set(answer) == {"error_code", "message"} and isinstance(
        answer["message"], str
    )
