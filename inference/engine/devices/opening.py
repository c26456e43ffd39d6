"""Open the device of this process when the first version needs it."""

import threading

from inference.engine.devices.cpu import CpuDevice
from inference.engine.devices.device import Device, DeviceOptions

_lock = threading.Lock()
_options: dict[str, DeviceOptions] = {}
_devices: dict[str, Device] = {}


def configure(name: str, options: DeviceOptions) -> None:
    """Set how a device will be opened; call before the first load."""
    _options[name] = options


def open_device(name: str) -> Device:
    """Return the device, e.g. `cpu` or `cuda:0`; for one name always the same."""
    with _lock:
        device = _devices.get(name)
        if device is None:
            device = _devices[name] = _open(name, _options.get(name, DeviceOptions()))
        return device


def opened(name: str) -> Device | None:
    """Return the device if it is open; never wait."""
    return _devices.get(name)


def counters(name: str) -> dict[str, int]:
    """Return the device's counters; none until it is open."""
    device = _devices.get(name)
    return {} if device is None else device.counters


def register(device: Device) -> None:
    """Add a device that was made elsewhere, under its own name."""
    _devices[device.name] = device


def _open(name: str, options: DeviceOptions) -> Device:
    if name == "cpu":
        return CpuDevice(options)
    if name.startswith("cuda"):
        # Deferred: it imports torch, and the engine listens before that.
        from inference.engine.devices.cuda import CudaDevice

        return CudaDevice(name, options)
    raise ValueError(f"There is no device {name!r}; cpu and cuda:N are known.")
