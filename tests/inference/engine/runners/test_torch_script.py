import shutil

import msgspec
import numpy as np
import pytest
import torch

from inference.engine.runners import runner, torch_script
from inference.engine.wire.errors import EngineError
from inference.engine.wire.tensors import Tensor
from tests.inference.engine.runners import logged

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def scripted(tmp_path_factory):
    from mlflow.models import infer_signature

    folder = tmp_path_factory.mktemp("scripted") / "linear"
    linear = torch.nn.Linear(3, 1)
    torch.nn.init.ones_(linear.weight)
    torch.nn.init.zeros_(linear.bias)
    rows = np.ones((2, 3), np.float32)
    logged.save_torch(
        folder, torch.jit.script(linear), signature=infer_signature(rows, rows[:, :1])
    )
    return folder


def test_an_archive_that_mlflow_wrote_answers(scripted):
    version = logged.version(scripted)

    loaded = runner.load(version, "cpu")

    (output,) = loaded.runner.run((Tensor("input", np.ones((4, 3), np.float32)),))
    assert torch_script.accepts(version)
    assert output.data.tolist() == [[3.0]] * 4


def test_an_archive_saved_by_hand_answers(scripted, tmp_path):
    folder = tmp_path / "by-hand"
    shutil.copytree(scripted, folder)
    (folder / "data" / "model.pth").rename(folder / "model.pt")

    loaded = runner.load(logged.version(folder), "cpu")

    (output,) = loaded.runner.run((Tensor("input", np.ones((1, 3), np.float32)),))
    assert output.data.tolist() == [[3.0]]


def test_it_can_be_differentiated(scripted):
    function = runner.load(logged.version(scripted), "cpu").runner.torch_function
    rows = torch.ones(1, 3, requires_grad=True)

    function(rows).sum().backward()

    assert rows.grad.tolist() == [[1.0] * 3]


def test_without_trust_it_is_refused_with_the_reason(scripted):
    with pytest.raises(EngineError, match=r"TorchScript code.*administrator"):
        runner.load(logged.version(scripted, trusted=False), "cpu")


def test_columns_of_several_types_are_not_for_it(scripted):
    version = msgspec.structs.replace(
        logged.version(scripted), signature={"layout": "table"}
    )

    with pytest.raises(EngineError, match="tensors only"):
        runner.load(version, "cpu")


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04 no archive", b"\x80\x02."])
def test_other_files_are_no_archives(scripted, tmp_path, data):
    folder = tmp_path / "other"
    shutil.copytree(scripted, folder)
    (folder / "data" / "model.pth").write_bytes(data)

    assert not torch_script.accepts(logged.version(folder))
