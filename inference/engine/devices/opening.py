"""The one device of this process, opened when the first version needs it."""

import threading

from inference.engine.devices.cpu import CpuDevice
from inference.engine.devices.device import Device, DeviceOptions

_lock = threading.Lock()
_options: dict[str, DeviceOptions] = {}
_devices: dict[str, Device] = {}


def configure(name: str, options: DeviceOptions) -> None:
    """Say how a device will be opened; called before anything is loaded."""
    _options[name] = options


def open_device(name: str) -> Device:
    """Give the device of that name, e.g. `cpu` or `cuda:0`; always the same one."""
    with _lock:
        device = _devices.get(name)
        if device is None:
            device = _devices[name] = _open(name, _options.get(name, DeviceOptions()))
        return device


def opened(name: str) -> Device | None:
    """Give the device if it is open; never waits."""
    return _devices.get(name)


def counters(name: str) -> dict[str, int]:
    """Give what the device counts; nothing until it is open."""
    device = _devices.get(name)
    return {} if device is None else device.counters


def register(device: Device) -> None:
    """Use a device that was made elsewhere under its name."""
    _devices[device.name] = device


def _open(name: str, options: DeviceOptions) -> Device:
    if name == "cpu":
        return CpuDevice(options)
    if name.startswith("cuda"):
        # Deferred: it needs torch, and the engine listens before that is imported.
        from inference.engine.devices.cuda import CudaDevice

        return CudaDevice(name, options)
    raise ValueError(f"There is no device {name!r}; cpu and cuda:N are known.")
