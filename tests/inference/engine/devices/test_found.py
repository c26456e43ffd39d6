import subprocess
import sys
from pathlib import Path

import pytest

from inference.engine.devices import found

# A driver with three devices, one that does not start, and one without devices.
_DRIVER = """
int cuInit(unsigned flags) { return %s; }
int cuDeviceGetCount(int *count) { *count = %d; return 0; }
int cuDeviceGet(int *device, int index) { *device = index; return 0; }
int cuDeviceTotalMem_v2(unsigned long *size, int device)
{ *size = (device + 1) * 5000000000ul; return 0; }
"""


def test_every_device_is_named():
    names = found.devices(has_cuda_build=lambda: True, ask=lambda: (1, 2))

    assert names == ("cuda:0", "cuda:1")


def test_without_devices_the_processor_is_used():
    assert found.devices(has_cuda_build=lambda: True, ask=lambda: ()) == ("cpu",)


def test_a_torch_without_cuda_asks_nobody():
    def nobody():
        raise AssertionError("was asked")

    assert found.devices(has_cuda_build=lambda: False, ask=nobody) == ("cpu",)


def test_the_build_of_torch_is_read_from_its_files():
    import torch

    assert found.torch_has_cuda() == (torch.version.cuda is not None)


def test_only_auto_is_looked_up():
    assert found.resolve("cuda:1") == "cuda:1"
    assert found.resolve("auto") == found.devices()[0]


def test_asking_imports_neither_torch_nor_django():
    program = (
        "import sys, runpy; runpy.run_module('inference.engine.devices.found', "
        "run_name='__main__'); print('torch' in sys.modules, 'django' in sys.modules)"
    )

    answer = subprocess.run(
        (sys.executable, "-c", program), capture_output=True, text=True, check=True
    )

    assert answer.stdout.splitlines()[-1] == "False False"


@pytest.mark.parametrize(
    ("init", "count", "expected"),
    [("0", 2, (5_000_000_000, 10_000_000_000)), ("100", 3, ()), ("0", 0, ())],
)
def test_the_driver_is_asked(tmp_path: Path, init, count, expected):
    source, library = tmp_path / "driver.c", tmp_path / "libcuda.so.1"
    source.write_text(_DRIVER % (init, count))
    try:
        subprocess.run(
            ("cc", "-shared", "-fPIC", "-o", library, source),
            check=True,
            capture_output=True,
        )
    except FileNotFoundError:
        pytest.skip("no C compiler")

    assert found.ask_driver(str(library)) == expected


def test_without_a_driver_there_are_no_devices():
    assert found.ask_driver("libno-such-driver.so.1") == ()


def test_a_device_that_is_not_there_has_no_memory():
    assert found.memory_bytes("cuda:99") == 0
    assert found.memory_bytes("cpu") == 0
