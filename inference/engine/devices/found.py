"""Find the CUDA devices of this machine without importing torch.

A short child process asks the driver, `libcuda`, which sees the same devices as torch:
it honours `CUDA_VISIBLE_DEVICES` and parts of devices (MIG). Importing torch instead
takes a second and 200 MB. The driver stays loaded in a process that asked it, which is
not safe if that process forks. If torch was built without CUDA, nothing is asked.
"""

import ctypes
import functools
import re
import subprocess
import sys
from collections.abc import Callable
from importlib import util
from pathlib import Path

import structlog

logger = structlog.get_logger(__name__)

_ASK_S = 20.0
_CUDA_BUILD = re.compile(r"^cuda\b[^=]*=\s*['\"]", re.MULTILINE)


def devices(
    *,
    has_cuda_build: "Callable[[], bool] | None" = None,
    ask: "Callable[[], tuple[int, ...]] | None" = None,
) -> tuple[str, ...]:
    """Return every CUDA device, e.g. `("cuda:0", "cuda:1")`, or `("cpu",)`."""
    if not (has_cuda_build or torch_has_cuda)():
        return ("cpu",)
    sizes = (ask or _ask)()
    return tuple(f"cuda:{index}" for index in range(len(sizes))) or ("cpu",)


def resolve(name: str) -> str:
    """Return the device that `auto` stands for; return other names unchanged."""
    return devices()[0] if name == "auto" else name


def memory_bytes(name: str) -> int:
    """Return the memory of a CUDA device; 0 if there is no such device."""
    names = devices()
    return _ask()[names.index(name)] if name in names and name != "cpu" else 0


def torch_has_cuda() -> bool:
    """Return whether the installed torch can use CUDA, judging from its files."""
    spec = util.find_spec("torch")
    if spec is None or spec.origin is None:
        return False
    try:
        text = Path(spec.origin).with_name("version.py").read_text()
    except OSError:
        return False
    return _CUDA_BUILD.search(text) is not None


@functools.cache
def _ask() -> tuple[int, ...]:
    """Return the memory of each device in bytes, asked in a child process."""
    command = (sys.executable, "-m", "inference.engine.devices.found")
    try:
        answer = subprocess.run(
            command, capture_output=True, text=True, timeout=_ASK_S, check=True
        )
        return tuple(int(line) for line in answer.stdout.split())
    # A driver that hangs or crashes must not stop the installation from starting.
    except (subprocess.SubprocessError, ValueError, OSError) as error:
        logger.warning("devices_not_found", reason=str(error)[:200])
        return ()


def ask_driver(library: str = "libcuda.so.1") -> tuple[int, ...]:
    """Ask the driver, which stays loaded in this process from then on."""
    try:
        driver = ctypes.CDLL(library)
    except OSError:
        return ()
    number = ctypes.c_int(0)
    if driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(number)):
        return ()
    return tuple(_memory_of(driver, index) for index in range(number.value))


def _memory_of(driver: ctypes.CDLL, index: int) -> int:
    handle, size = ctypes.c_int(0), ctypes.c_size_t(0)
    if driver.cuDeviceGet(ctypes.byref(handle), index):
        return 0
    if driver.cuDeviceTotalMem_v2(ctypes.byref(size), handle):
        return 0
    return size.value


if __name__ == "__main__":
    sys.stdout.write("".join(f"{size}\n" for size in ask_driver()))
