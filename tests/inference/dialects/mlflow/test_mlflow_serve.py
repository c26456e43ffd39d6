"""Send the same requests to `mlflow models serve` and to us, and compare answers."""

import asyncio
import json
import os
import runpy
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import msgspec
import pytest
import yaml

from accounts.admission.limits import Limits
from inference.dialects import call_headers
from inference.dialects.dialect import Call, Finished
from inference.dialects.mlflow.scoring import MLFLOW
from inference.engine.runners import runner
from inference.engine.signatures.mlflow_signature import from_mlflow
from inference.engine.wire.errors import EngineError
from inference.engine.wire.messages import VersionKey, VersionToLoad
from inference.engine.wire.tensors import Prediction
from inference.errors import refusals
from inference.errors.api_error import ApiError
from inference.snapshot.contents import CallableModel, CallableVersion
from inference.snapshot.targets import Target
from tests.inference.dialects.mlflow import mlflow_models
from tests.inference.dialects.mlflow.mlflow_corpus import QUESTIONS, Question

LIMITS = Limits(plan="p", rates=())
SAVE = {
    "table": mlflow_models.save_table,
    "tensor": mlflow_models.save_tensor,
    "text": mlflow_models.save_text,
    "names": mlflow_models.save_names,
    "typed": mlflow_models.save_typed,
    "maps": mlflow_models.save_maps,
    "lists": mlflow_models.save_lists,
}
# Documented in docs/protocols.md: we answer these, and MLflow's model fails.
ONLY_OURS = {("table", "split without the optional column")}


class Reply(NamedTuple):
    status: int
    body: bytes


class OurAnswers:
    """The dialect with the engine's runner, without a socket in between."""

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
        head = call_headers.read([(b"content-type", question.content_type.encode())])
        call = Call("batch", head, MLFLOW)
        try:
            MLFLOW.prepare(call)
            decoded = MLFLOW.decode(call, self._target, question.body, LIMITS)
        except ApiError as error:
            status, _, body = MLFLOW.render(call, error, request_id="r", now=0.0)
            return Reply(status, body)
        try:
            tensors = runner.run(self._runner, decoded.tensors, decoded.params)
        except EngineError as failure:
            error = refusals.of_engine(failure)
            status, _, body = MLFLOW.render(call, error, request_id="r", now=0.0)
            return Reply(status, body)
        prediction = Prediction(tensors, 0, 0, decoded.rows)
        finished = Finished(call, "r", self._target, decoded, prediction, None)
        return Reply(200, MLFLOW.encode(finished)[1])


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    for name, save in SAVE.items():
        save(folder / name)
    return folder


def ask_mlflow(path: Path, questions: list[Question]) -> list[httpx.Response]:
    """Send requests to the application that `mlflow models serve` runs in uvicorn.

    MLflow's command line for uvicorn names the application, its environment the model.
    Running `mlflow models serve` itself would import much more.
    """
    from mlflow.pyfunc import scoring_server

    command, environment = scoring_server.get_cmd(str(path))
    module, _, name = command.split()[-1].partition(":")
    with pytest.MonkeyPatch.context() as patch:
        # The application sets this variable itself.
        patch.setenv("_MLFLOW_IS_IN_SERVING_ENVIRONMENT", "true")
        for key in environment.keys() - os.environ.keys():
            patch.setenv(key, environment[key])
        return asyncio.run(post_all(runpy.run_module(module)[name], questions))


async def post_all(app: Any, questions: list[Question]) -> list[httpx.Response]:
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://them") as client:
        return [
            await client.post(
                "/invocations",
                content=question.body,
                headers={"content-type": question.content_type},
            )
            for question in questions
        ]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", SAVE)
def test_answers_are_those_of_mlflow_models_serve(name, models):
    ours = OurAnswers(name, models / name)
    answers = ask_mlflow(models / name, QUESTIONS[name])
    different = []

    for question, theirs in zip(QUESTIONS[name], answers, strict=True):
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
