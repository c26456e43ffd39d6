import json

import msgspec
import numpy as np
import pytest
import torch

from inference.engine.runners import pyfunc, runner, torch_module
from inference.engine.runners.torch_runner import TorchRunner
from inference.engine.signatures.signature import Layout, Signature, TensorInput
from inference.engine.wire.errors import EngineError
from inference.engine.wire.tensors import Tensor
from tests.inference.engine.runners import logged

pytestmark = pytest.mark.filterwarnings("ignore")


class Halves(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.dropout = torch.nn.Dropout(0.9)

    def forward(self, rows):
        return self.dropout(rows) / 2, rows * 2


class Masked(torch.nn.Module):
    """A module that sums unmasked values; its arguments are not ordered by name."""

    def forward(self, mask, ids):
        return (mask * ids).sum(1).float()


@pytest.fixture(scope="module")
def halves(tmp_path_factory):
    from mlflow.models import infer_signature

    folder = tmp_path_factory.mktemp("pickled") / "halves"
    rows = np.ones((2, 3), np.float32)
    signature = infer_signature(rows, {"half": rows, "double": rows})
    logged.save_torch(folder, Halves(), signature=signature)
    return folder


def test_a_pickled_module_answers_with_named_outputs(halves):
    loaded = runner.load(logged.version(halves), "cpu")

    half, double = loaded.runner.run((Tensor("input", np.ones((1, 3), np.float32)),))

    assert isinstance(loaded.runner, TorchRunner)
    assert (half.name, half.data.tolist()) == ("half", [[0.5] * 3])
    assert (double.name, double.data.tolist()) == ("double", [[2.0] * 3])


def test_without_trust_it_is_refused_with_the_reason(halves):
    with pytest.raises(EngineError, match=r"pickled torch module.*administrator"):
        runner.load(logged.version(halves, trusted=False), "cpu")


def test_it_must_reproduce_what_was_logged(halves, tmp_path):
    import shutil

    folder = tmp_path / "copy"
    shutil.copytree(halves, folder)
    (folder / "serving_input_example.json").write_text('{"inputs": [[1, 2, 4]]}')
    outputs = {"half": [[0.5, 1.0, 2.0]], "double": [[2.0, 4.0, 8.0]]}
    (folder / "output_example.json").write_text(json.dumps(outputs))
    runner.load(logged.version(folder), "cpu")

    outputs["half"] = [[9.0, 1.0, 2.0]]
    (folder / "output_example.json").write_text(json.dumps(outputs))

    with pytest.raises(EngineError, match="does not reproduce"):
        runner.load(logged.version(folder), "cpu")


def test_tables_and_parameters_are_left_to_mlflow(halves):
    version = logged.version(halves)
    table = msgspec.structs.replace(version, signature={"layout": "table"})
    params = msgspec.structs.replace(
        version, signature=version.signature | {"params": [{"name": "a"}]}
    )

    assert torch_module.accepts(version)
    for other in (table, params):
        assert not torch_module.accepts(other)
        assert pyfunc.accepts(other)


def test_several_inputs_go_to_the_arguments_of_their_names():
    signature = Signature(
        layout=Layout.TENSORS,
        inputs=(
            TensorInput("ids", "int64", (-1,)),
            TensorInput("mask", "int64", (-1,)),
        ),
    )
    module = torch_module.by_name(Masked(), signature)

    assert module(torch.tensor([[5, 7]]), torch.tensor([[1, 0]])).tolist() == [5.0]


def test_inputs_of_other_names_keep_their_order():
    signature = Signature(
        layout=Layout.TENSORS, inputs=(TensorInput("a"), TensorInput("b"))
    )
    module = Masked()

    assert torch_module.by_name(module, signature) is module


def test_what_is_no_module_says_so(halves, tmp_path):
    import shutil

    folder = tmp_path / "copy"
    shutil.copytree(halves, folder)
    torch.save({"weights": torch.ones(1)}, folder / "data" / "model.pth")

    with pytest.raises(EngineError, match="was not loaded"):
        runner.load(logged.version(folder), "cpu")
