import json
import shutil
from concurrent.futures import ThreadPoolExecutor

import msgspec
import numpy as np
import pytest
import torch

from inference.engine.runners import runner
from inference.engine.signatures.signature import Column, Layout, Signature
from inference.engine.wire.errors import EngineError
from inference.engine.wire.messages import OutputTensor
from inference.engine.wire.tensors import Tensor


@pytest.fixture
def copy(artifact, tmp_path, version):
    """A copy of the artifact that a test may change, and the version of it."""
    folder = tmp_path / "copy"
    shutil.copytree(artifact, folder)
    return folder, msgspec.structs.replace(version, path=str(folder))


def reason(version):
    with pytest.raises(EngineError) as caught:
        runner.load(version, "cpu")
    return caught.value.message


def numbers(*rows):
    return (Tensor("input", np.array(rows, dtype=np.float32)),)


def test_an_exported_model_answers_any_number_of_rows(version):
    loaded = runner.load(version, "cpu")

    for count in (1, 2, 300):
        (output,) = loaded.runner.run(numbers(*[[1, 2, 3]] * count))
        assert output.name == "output"
        assert output.data.tolist() == [[6.0, -6.0]] * count


def test_several_versions_load_at_the_same_time(version):
    with ThreadPoolExecutor(4) as threads:
        loaded = [*threads.map(lambda _: runner.load(version, "cpu"), range(8))]

    for each in loaded:
        (output,) = each.runner.run(numbers([1, 2, 3]))
        assert output.data.tolist() == [[6.0, -6.0]]
        assert not each.apart


def test_read_only_input_is_left_alone(version):
    loaded = runner.load(version, "cpu")
    data = np.frombuffer(np.ones(3, np.float32).tobytes(), np.float32).reshape(1, 3)

    (output,) = loaded.runner.run((Tensor("input", data),))

    assert output.data.tolist() == [[3.0, -3.0]]


def test_its_function_can_be_differentiated(version):
    function = runner.load(version, "cpu").runner.torch_function
    rows = torch.ones(2, 3, requires_grad=True)

    function(rows)[:, 1].sum().backward()

    assert rows.grad.tolist() == [[-1.0] * 3] * 2


def test_logged_outputs_must_be_reproduced(copy):
    folder, version = copy
    outputs = folder / "output_example.json"

    outputs.write_text(json.dumps([[6.0, -6.0], [1.0, -1.0]]))
    runner.load(version, "cpu")
    outputs.write_text(json.dumps([[6.0, -6.0], [1.01, -1.0]]))

    assert "does not reproduce" in reason(version)


def test_logged_outputs_of_another_shape_fail_the_version(copy):
    folder, version = copy
    (folder / "output_example.json").write_text("[[6.0, -6.0]]")

    assert "another shape" in reason(version)


def test_an_example_that_does_not_fit_fails_the_version(copy):
    folder, version = copy
    (folder / "serving_input_example.json").write_text('{"inputs": [["a", "b", "c"]]}')

    assert "was not loaded" in reason(version)


def test_without_an_example_zeros_prove_it(copy):
    folder, version = copy
    (folder / "serving_input_example.json").unlink()

    runner.load(version, "cpu")


def test_a_model_for_a_fixed_number_of_rows_says_how_to_log_it(copy):
    folder, version = copy
    program = torch.export.export(torch.nn.Linear(3, 1).eval(), (torch.ones(1, 3),))
    torch.export.save(program, folder / "data" / "model.pt2")

    assert "more than one row" in reason(version)


def test_named_columns_of_several_types_are_not_for_torch(version):
    table = Signature(layout=Layout.TABLE, columns=(Column("a"),))
    version = msgspec.structs.replace(version, signature=msgspec.to_builtins(table))

    assert "names columns of several types" in reason(version)


def test_a_broken_archive_fails_the_version(copy):
    folder, version = copy
    data = (folder / "data" / "model.pt2").read_bytes()
    (folder / "data" / "model.pt2").write_bytes(data[: len(data) // 2])

    assert "was not loaded" in reason(version)


def test_several_outputs_are_named(copy):
    class Two(torch.nn.Module):
        def forward(self, rows):
            return {"sum": rows.sum(1), "half": rows.bfloat16() / 2}

    folder, version = copy
    program = torch.export.export(
        Two(), (torch.ones(4, 3),), dynamic_shapes=({0: torch.export.Dim("rows")},)
    )
    torch.export.save(program, folder / "data" / "model.pt2")

    loaded = runner.load(version, "cpu")
    outputs = loaded.runner.run(numbers([1, 2, 3]))

    assert {tensor.name: tensor.data.tolist() for tensor in outputs} == {
        "sum": [6.0],
        "half": [[0.5, 1.0, 1.5]],
    }
    assert set(loaded.outputs) == {
        OutputTensor("sum", "float32", ()),
        OutputTensor("half", "float32", (3,)),
    }
