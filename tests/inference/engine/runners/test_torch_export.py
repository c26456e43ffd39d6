"""Test exported programs with rows of varying length, and on a device with streams."""

import asyncio
import json

import msgspec
import numpy as np
import pytest
import torch

from inference.engine.devices import opening
from inference.engine.engine import EngineCore
from inference.engine.in_process import InProcessEngineClient
from inference.engine.runners import runner
from inference.engine.settings import EngineSettings
from inference.engine.signatures.padding import Padding
from inference.engine.signatures.signature import Layout, Signature, TensorInput
from inference.engine.wire.calls import PredictionCall
from inference.engine.wire.errors import EngineError
from inference.engine.wire.messages import VersionKey, VersionToLoad
from inference.engine.wire.tensors import Tensor
from tests.inference.engine.devices.fake_device import FakeDevice
from tests.inference.engine.fakes import run

SIGNATURE = Signature(
    layout=Layout.TENSORS,
    inputs=(
        TensorInput("ids", "int64", (-1,)),
        TensorInput("mask", "int64", (-1,)),
    ),
    output_shapes=((3,), (-1,)),
    padding=Padding(value=7, buckets=(4, 8), mask_input="mask"),
)


class Tokens(torch.nn.Module):
    """A module that averages the vectors of marked tokens and scores each token."""

    def __init__(self):
        super().__init__()
        self.vectors = torch.nn.Embedding(50, 3)

    def forward(self, ids, mask):
        vectors = self.vectors(ids)
        marks = mask.unsqueeze(-1).float()
        return (vectors * marks).sum(1) / marks.sum(1), vectors.sum(-1)


def export(folder, module, dynamic_shapes):
    (folder / "data").mkdir()
    ids = torch.arange(12).reshape(2, 6)
    program = torch.export.export(
        module.eval(), (ids, torch.ones_like(ids)), dynamic_shapes=dynamic_shapes
    )
    torch.export.save(program, folder / "data" / "model.pt2")
    example = {"ids": ids.tolist(), "mask": torch.ones_like(ids).tolist()}
    (folder / "serving_input_example.json").write_text(json.dumps({"inputs": example}))
    return VersionToLoad(
        key=VersionKey("tokens", 1),
        path=str(folder),
        flavors=("pytorch",),
        signature=msgspec.to_builtins(SIGNATURE),
    )


def any_size():
    sizes = {0: torch.export.Dim.AUTO, 1: torch.export.Dim.AUTO}
    return (sizes, sizes)


def request(ids):
    return Tensor("ids", ids), Tensor("mask", np.ones_like(ids))


@pytest.fixture(params=["cpu", "fake:export"])
def device(request):
    if request.param == "cpu":
        yield "cpu"
        return
    fake = FakeDevice(name=request.param)
    opening.register(fake)
    yield fake.name
    fake.close()


def test_rows_of_any_length_get_the_answers_of_the_module_itself(tmp_path, device):
    module = Tokens()
    version = export(tmp_path, module, any_size())

    async def main():
        settings = EngineSettings(
            home=str(tmp_path), device=device, plugins=(), memory_budget_bytes=10**9
        )
        engine = EngineCore(settings)
        engine.load(version)
        while engine.status().versions[0].state == "loading":
            await asyncio.sleep(0.01)
        client = InProcessEngineClient(engine)
        sent = [
            np.arange(rows * length).reshape(rows, length)
            for rows, length in ((1, 1), (3, 5), (2, 4), (1, 8))
        ]
        answers = await asyncio.gather(
            *(
                client.predict(PredictionCall(version.key, request(ids), timeout_s=20))
                for ids in sent
            )
        )
        engine.close()
        return zip(sent, answers, strict=True)

    for ids, answer in run(main()):
        tokens = torch.from_numpy(ids)
        means, scores = module(tokens, torch.ones_like(tokens))
        np.testing.assert_allclose(
            answer.tensors[0].data, means.detach().numpy(), rtol=1e-5
        )
        np.testing.assert_allclose(
            answer.tensors[1].data, scores.detach().numpy(), rtol=1e-5
        )


def test_a_program_of_one_length_says_so(tmp_path):
    rows = {0: torch.export.Dim("rows")}
    version = export(tmp_path, Tokens(), (rows, rows))

    with pytest.raises(EngineError, match="exported for rows of length 6"):
        runner.load(version, "cpu")


def test_a_signature_with_other_inputs_says_so(tmp_path):
    version = export(tmp_path, Tokens(), any_size())
    one = msgspec.structs.replace(SIGNATURE, inputs=SIGNATURE.inputs[:1])
    version = msgspec.structs.replace(version, signature=msgspec.to_builtins(one))

    with pytest.raises(EngineError, match="takes 2 inputs, its signature has 1"):
        runner.load(version, "cpu")


def test_an_exported_program_may_run_in_half_precision(version):
    fake = FakeDevice(name="fake:half")
    opening.register(fake)
    signature = version.signature | {"precision": "bfloat16"}

    loaded = runner.load(
        msgspec.structs.replace(version, signature=signature), fake.name
    )
    rows = np.array([[1.0, 2.0, 3.0]], np.float32)
    (output,) = loaded.runner.run((Tensor("input", rows),))
    fake.close()

    assert loaded.runner.notes == ("precision bfloat16",)
    assert loaded.depth == 2
    assert output.data.tolist() == [[6.0, -6.0]]
    assert output.data.dtype == np.float32
