"""Test a real CUDA device; `test_forward` tests the same rules on a fake device."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from inference.engine.devices import forward
from inference.engine.devices.device import DeviceOptions

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]

SIZES = (1, 4, 16)


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = torch.nn.Sequential(
            torch.nn.Linear(32, 64), torch.nn.ReLU(), torch.nn.Linear(64, 3)
        )

    def forward(self, rows):
        return {"logits": self.layers(rows), "rows": rows}


@pytest.fixture(params=["off", "auto"], ids=["graphs", "compiled"])
def device(request):
    from inference.engine.devices.cuda import CudaDevice

    return CudaDevice("cuda:0", DeviceOptions(compile=request.param))


def rows(count, seed=0):
    generator = np.random.default_rng(seed)
    return generator.standard_normal((count, 32), dtype=np.float32)


def prepared(device, module, **options):
    on_device = forward.on(device, module.to(device.torch_device).eval(), **options)
    on_device.prepare([[rows(size)] for size in SIZES])
    return on_device


def expected(module, batch):
    with torch.inference_mode():
        return module(torch.from_numpy(batch).cuda())["logits"].cpu().numpy()


def test_graphs_answer_like_the_module(device):
    module = Net()
    on_device = prepared(device, module)

    assert device.counters["graphs_captured"] == len(SIZES), on_device.reason
    for count in (1, 2, 3, 4, 9, 16, 20):
        batch = rows(count, count)
        outputs = dict(on_device.run([batch]))
        np.testing.assert_allclose(
            outputs["logits"], expected(module, batch), 1e-3, 1e-4
        )
        np.testing.assert_array_equal(outputs["rows"], batch)
    assert device.counters["graph_batches"] == 6
    assert device.counters["eager_batches"] == 1


def test_batches_in_flight_never_get_each_others_answers(device):
    on_device = prepared(device, Net())
    batches = [rows(1 + index % 20, index) for index in range(500)]

    with ThreadPoolExecutor(device.depth) as pool:
        answers = list(pool.map(lambda batch: on_device.run([batch]), batches))

    for batch, outputs in zip(batches, answers, strict=True):
        np.testing.assert_array_equal(dict(outputs)["rows"], batch)


def test_half_precision_is_close(device):
    module = Net()
    on_device = prepared(device, module, bfloat16=True)

    outputs = dict(on_device.run([rows(4)]))

    assert outputs["logits"].dtype == np.float32
    np.testing.assert_allclose(
        outputs["logits"], expected(module, rows(4)), rtol=0.05, atol=0.05
    )


def test_a_module_that_waits_for_the_device_runs_without_graphs(device):
    class Waits(Net):
        def forward(self, rows):
            if rows.sum().item() > 1e9:
                return {"rows": rows}
            return super().forward(rows)

    on_device = prepared(device, Waits())

    assert "no graph" in on_device.reason
    np.testing.assert_array_equal(dict(on_device.run([rows(3)]))["rows"], rows(3))


def test_memory_is_reported(device):
    prepared(device, Net())

    total, used, reserved = device.memory()

    assert total > used >= reserved > 0
