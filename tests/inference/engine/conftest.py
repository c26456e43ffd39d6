"""Write a real exported model into a folder, as MLflow does."""

import json
from pathlib import Path

import msgspec
import pytest

from inference.engine.signatures.signature import Layout, Signature
from inference.engine.wire.messages import VersionKey, VersionToLoad

SIGNATURE = Signature(layout=Layout.TENSOR, dtype="float32", shape=(3,))


@pytest.fixture(scope="session")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A module that returns the sum of a row of three, and its negative."""
    import torch

    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = torch.nn.Linear(3, 2)
            with torch.no_grad():
                self.linear.weight.copy_(torch.tensor([[1.0] * 3, [-1.0] * 3]))
                self.linear.bias.zero_()

        def forward(self, rows: torch.Tensor) -> torch.Tensor:
            output: torch.Tensor = self.linear(rows)
            return output

    folder = tmp_path_factory.mktemp("artifact")
    (folder / "data").mkdir()
    program = torch.export.export(
        Model().eval(),
        (torch.ones(4, 3),),
        dynamic_shapes=({0: torch.export.Dim("rows")},),
    )
    torch.export.save(program, folder / "data" / "model.pt2")
    (folder / "serving_input_example.json").write_text(
        json.dumps({"inputs": [[1.0, 2.0, 3.0], [0.0, 0.0, 1.0]]})
    )
    return folder


@pytest.fixture
def version(artifact: Path) -> VersionToLoad:
    return VersionToLoad(
        key=VersionKey("sums", 1),
        path=str(artifact),
        flavors=("python_function", "pytorch"),
        signature=msgspec.to_builtins(SIGNATURE),
    )
