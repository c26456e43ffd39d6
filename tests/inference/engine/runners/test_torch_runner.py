"""Test torch modules with one or several inputs, on the CPU and on a faster device."""

import numpy as np
import pytest
import torch

from inference.engine.devices import opening
from inference.engine.devices.device import DeviceOptions
from inference.engine.runners.torch_runner import TorchRunner
from inference.engine.signatures.padding import Padding
from inference.engine.signatures.signature import Layout, Signature, TensorInput
from inference.engine.wire.tensors import Tensor
from tests.inference.engine.devices.fake_device import FakeDevice

ROWS = np.arange(12, dtype=np.float32).reshape(4, 3)


class Tokens(torch.nn.Module):
    """A module that averages the vectors of the tokens that the mask marks."""

    def __init__(self):
        super().__init__()
        self.vectors = torch.nn.Embedding(100, 5)

    def forward(self, ids, mask):
        marks = mask.unsqueeze(-1).float()
        return (self.vectors(ids) * marks).sum(1) / marks.sum(1)


TOKENS = Signature(
    layout=Layout.TENSORS,
    inputs=(
        TensorInput("input_ids", "int64", (-1,)),
        TensorInput("attention_mask", "int64", (-1,)),
    ),
    padding=Padding(buckets=(4, 8), mask_input="attention_mask"),
)


def signature(**fields):
    return Signature(layout=Layout.TENSOR, shape=(3,), **fields)


@pytest.fixture
def fake(request):
    device = FakeDevice(name=f"fake:{request.node.name[:40]}")
    opening.register(device)
    yield device
    device.close()


def runner_on(device, module, signature_):
    runner = TorchRunner(module, device.name, signature_)
    runner.warm_up(
        (Tensor("input", ROWS),)
        if signature_.layout is Layout.TENSOR
        else tokens([1, 2, 3], [4, 5, 6])
    )
    return runner


def tokens(*ids):
    data = np.array(ids, np.int64)
    return Tensor("input_ids", data), Tensor("attention_mask", np.ones_like(data))


def test_a_graph_is_prepared_for_every_power_of_two(fake):
    runner = runner_on(fake, torch.nn.Linear(3, 2), signature())

    assert [shape[0] for shape in fake.captured] == [8, 4, 2, 1]
    assert runner.depth == 2


def test_the_answers_of_a_staged_device_are_those_of_the_processor(fake):
    module = torch.nn.Linear(3, 2)
    staged = runner_on(fake, module, signature())
    direct = TorchRunner(module, "cpu", signature())

    for rows in (1, 3, 4):
        given = (Tensor("input", ROWS[:rows]),)
        (one,), (other,) = staged.run(given), direct.run(given)
        assert one.name == other.name == "output"
        np.testing.assert_allclose(one.data, other.data, rtol=1e-6)


def test_graphs_cover_each_length_within_the_budget(fake):
    fake.options = DeviceOptions(max_batch_rows=8, max_graphs=4)

    runner_on(fake, Tokens(), TOKENS)

    assert sorted(fake.captured) == [(1, 4), (1, 8), (8, 4), (8, 8)]


def test_no_graphs_are_made_where_none_are_wanted(fake):
    fake.options = DeviceOptions(max_batch_rows=8, max_graphs=0)

    runner_on(fake, torch.nn.Linear(3, 2), signature())

    assert fake.captured == []


def test_any_length_may_come_where_none_are_prepared_for(fake):
    module = Tokens()
    free = Signature(layout=TOKENS.layout, inputs=TOKENS.inputs)

    runner = runner_on(fake, module, free)
    (output,) = runner.run(tokens([1, 2, 3, 4, 5]))

    assert fake.captured == []
    assert output.data.shape == (1, 5)


def test_several_inputs_are_passed_by_name_in_whatever_order(fake):
    runner = runner_on(fake, Tokens(), TOKENS)
    ids, mask = tokens([1, 2, 3, 4])

    (one,) = runner.run((ids, mask))
    (other,) = runner.run((mask, ids))

    np.testing.assert_array_equal(one.data, other.data)


def test_rows_as_long_as_the_largest_bucket_are_tried_at_loading(fake):
    class Short(Tokens):
        def forward(self, ids, mask):
            if ids.shape[1] > 6:
                raise ValueError("at most 6 tokens")
            return super().forward(ids, mask)

    with pytest.raises(ValueError, match="at most 6 tokens"):
        runner_on(fake, Short(), TOKENS)


@pytest.mark.parametrize(
    ("wanted", "tolerance", "fast", "expected"),
    [
        ("float32", 10.0, True, "float32"),
        ("bfloat16", 1e-9, True, "bfloat16"),
        ("bfloat16", 10.0, False, "float32"),
        ("auto", 10.0, True, "bfloat16"),
        ("auto", 1e-9, True, "float32"),
    ],
)
def test_half_precision_is_used_where_the_version_and_the_device_allow_it(
    fake, wanted, tolerance, fast, expected
):
    fake.fast_bfloat16 = fast

    runner = runner_on(
        fake,
        torch.nn.Linear(3, 2),
        signature(precision=wanted, example_tolerance=tolerance),
    )

    assert runner.notes == (f"precision {expected}",)


def test_why_there_are_no_graphs_is_noted(fake):
    fake.capture_error = "it synchronizes"

    runner = runner_on(fake, torch.nn.Linear(3, 2), signature())

    assert runner.notes[1] == "no graph for 8 rows: it synchronizes"
    assert fake.counters["graphs_captured"] == 0


def test_unloading_gives_the_memory_back(fake):
    runner = runner_on(fake, torch.nn.Linear(3, 2), signature())

    runner.unload()

    assert fake.freed == 1
    assert runner.torch_function is None


def test_a_device_that_nobody_knows_is_refused():
    with pytest.raises(ValueError, match="no device 'tpu'"):
        TorchRunner(torch.nn.Linear(3, 2), "tpu", signature())
