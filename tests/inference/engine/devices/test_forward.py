"""Test sizes, graphs and fallbacks on a device that copies and computes by itself."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from inference.engine.devices import forward
from inference.engine.devices.cpu import CpuDevice
from inference.engine.devices.device import DeviceOptions
from tests import torture
from tests.inference.engine.devices.fake_device import FakeDevice


class Doubler(torch.nn.Module):
    def forward(self, rows):
        return rows * 2


class Linear(torch.nn.Linear):
    def __init__(self):
        super().__init__(3, 2)


class Several(torch.nn.Module):
    def forward(self, rows, other):
        return {"sum": rows.sum(1) + other, "first": rows}


def rows(count, width=3, start=0):
    size = count * width
    return np.arange(start, start + size, dtype=np.float32).reshape(count, width)


@pytest.fixture
def make_device():
    devices = []

    def make(**arguments):
        devices.append(FakeDevice(**arguments))
        return devices[-1]

    yield make
    for device in devices:
        device.close()


def prepared(device, module=None, sizes=(1, 2, 4, 8)):
    result = forward.on(device, module or Doubler())
    result.prepare([[rows(size)] for size in sizes])
    device.called.clear()
    return result


def test_a_batch_is_filled_up_to_the_next_size_and_its_answers_are_cut(make_device):
    device = make_device()
    doubler = prepared(device)

    [(name, outputs)] = doubler.run([rows(3)])

    assert name == "output"
    np.testing.assert_array_equal(outputs, rows(3) * 2)
    assert device.replayed == [4]
    assert device.counters["filled_rows"] == 1
    assert device.counters["graph_batches"] == 1


def test_graphs_are_captured_from_the_largest_to_the_smallest(make_device):
    device = make_device()

    prepared(device)

    assert device.captured == [(8, 3), (4, 3), (2, 3), (1, 3)]


def test_a_batch_larger_than_all_graphs_runs_as_it_is(make_device):
    device = make_device()
    doubler = prepared(device, sizes=(1, 2))

    [(_, outputs)] = doubler.run([rows(5)])

    np.testing.assert_array_equal(outputs, rows(5) * 2)
    assert device.called == [5]
    assert device.replayed == []


def test_rows_of_another_shape_never_meet_a_graph_of_this_one(make_device):
    device = make_device()
    doubler = prepared(device)

    [(_, outputs)] = doubler.run([rows(2, width=7)])

    np.testing.assert_array_equal(outputs, rows(2, width=7) * 2)
    assert device.replayed == []


def test_without_graphs_everything_still_works_and_the_reason_is_known(make_device):
    device = make_device(capture_error="it synchronizes")
    doubler = prepared(device)

    [(_, outputs)] = doubler.run([rows(3)])

    np.testing.assert_array_equal(outputs, rows(3) * 2)
    assert device.called == [3]
    assert doubler.reason == "no graph for 8 rows: it synchronizes"
    assert device.counters["graphs_captured"] == 0
    assert device.counters["graph_fallbacks"] == 1


def test_sizes_that_do_not_fit_into_the_memory_get_no_graph(make_device):
    device = make_device(most_rows=3)

    doubler = prepared(device)

    assert device.captured == [(2, 3), (1, 3)]
    assert doubler.reason == (
        "no memory for a graph of 8 rows; no memory for a graph of 4 rows"
    )


def test_a_module_that_cannot_be_compiled_runs_uncompiled(make_device, monkeypatch):
    def explode(function, **options):
        def compiled(*inputs):
            raise RuntimeError("no compiler\nand more")

        return compiled

    monkeypatch.setattr(torch, "compile", explode)
    device = make_device(compiles=True)
    doubler = prepared(device)

    [(_, outputs)] = doubler.run([rows(2)])

    np.testing.assert_array_equal(outputs, rows(2) * 2)
    assert doubler.reason == "not compiled: RuntimeError: no compiler"
    assert device.counters["graphs_captured"] == 4


def test_what_was_compiled_is_what_is_captured(make_device, monkeypatch):
    sizes = []

    def record(function, **options):
        def compiled(*inputs):
            sizes.append(len(inputs[0]))
            return function(*inputs)

        return compiled

    monkeypatch.setattr(torch, "compile", record)
    doubler = prepared(make_device(compiles=True), sizes=(1, 4))
    sizes.clear()

    doubler.run([rows(3)])

    assert sizes == [4]


def test_every_size_is_compiled_however_many_versions_there_are(
    make_device, monkeypatch
):
    compiled = []
    original = torch.compile

    def counting(graph, inputs):
        compiled.append(len(inputs[-1]))
        return graph.forward

    monkeypatch.setattr(
        torch,
        "compile",
        lambda function, **options: original(function, backend=counting, **options),
    )
    sizes = tuple(range(1, 13))

    for _ in range(2):
        prepared(make_device(compiles=True), Linear(), sizes=sizes)

    assert compiled == [*sizes, *sizes]


def test_several_inputs_and_outputs_keep_their_names(make_device):
    device = make_device()
    several = forward.on(device, Several())
    several.prepare([[rows(4), np.zeros(4, np.float32)]])

    outputs = dict(several.run([rows(3), np.ones(3, np.float32)]))

    np.testing.assert_array_equal(outputs["sum"], rows(3).sum(1) + 1)
    np.testing.assert_array_equal(outputs["first"], rows(3))


def test_the_next_batch_is_copied_in_while_one_computes(make_device):
    device = make_device(step_s=0.02, copy_s=0.005)
    doubler = prepared(device)
    device.events.clear()

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(doubler.run, [[rows(8)], [rows(4)]]))

    begin = [("copy_in", size, "begin") for size in (8, 4)]
    ends = [
        index
        for index, (kind, _, when) in enumerate(device.events)
        if kind == "replay" and when == "end"
    ]
    second_copy = max(device.events.index(each) for each in begin)
    assert second_copy < min(ends)


@settings(max_examples=torture.examples(25), deadline=None)
@given(sizes=st.lists(st.integers(1, 10), min_size=2, max_size=24))
def test_batches_in_flight_never_get_each_others_answers(sizes):
    device = FakeDevice()
    try:
        doubler = prepared(device)
        batches = [rows(size, start=1000 * index) for index, size in enumerate(sizes)]

        with ThreadPoolExecutor(device.depth) as pool:
            answers = list(pool.map(lambda batch: doubler.run([batch]), batches))
    finally:
        device.close()

    for batch, [(_, outputs)] in zip(batches, answers, strict=True):
        np.testing.assert_array_equal(outputs, batch * 2)


def test_answers_are_wrong_if_a_batch_does_not_wait_for_its_copies(make_device):
    """Check that the fake shows such an error, on which the test above relies."""
    device = make_device(copy_s=0.05, waits_for_copies=False)
    doubler = forward.on(device, Doubler())

    [(_, outputs)] = doubler.run([rows(4)])

    assert not np.array_equal(outputs, rows(4) * 2)


def test_a_failed_batch_leaves_its_buffers_to_the_next(make_device):
    device = make_device(depth=1)
    doubler = prepared(device, sizes=())
    device.error = RuntimeError("boom")
    with pytest.raises(RuntimeError, match="boom"):
        doubler.run([rows(2)])
    device.error = None

    [(_, outputs)] = doubler.run([rows(2)])

    np.testing.assert_array_equal(outputs, rows(2) * 2)


def test_the_processor_runs_arrays_in_place():
    direct = forward.on(CpuDevice(DeviceOptions()), Doubler())
    given_rows = rows(3)
    given_rows.flags.writeable = False

    [(name, outputs)] = direct.run([given_rows])

    assert name == "output"
    np.testing.assert_array_equal(outputs, rows(3) * 2)


def test_the_processor_compiles_only_when_told(monkeypatch):
    compiled = []

    def record(function, **options):
        compiled.append(options)
        return function

    monkeypatch.setattr(torch, "compile", record)

    forward.on(CpuDevice(DeviceOptions()), Doubler()).prepare([[rows(2)]])
    assert compiled == []

    forward.on(CpuDevice(DeviceOptions(compile="on")), Doubler()).prepare([[rows(2)]])
    assert [options["dynamic"] for options in compiled] == [True]


def test_half_precision_rounds_but_answers_in_float32(make_device):
    linear = torch.nn.Linear(3, 2)
    half = forward.on(make_device(), linear, bfloat16=True)
    half.prepare([[rows(4)]])

    [(_, outputs)] = half.run([rows(4)])

    exact = linear(torch.from_numpy(rows(4))).detach().numpy()
    assert outputs.dtype == np.float32
    assert not np.array_equal(outputs, exact)
    np.testing.assert_allclose(outputs, exact, rtol=0.02, atol=0.1)
