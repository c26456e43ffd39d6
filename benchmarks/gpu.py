"""Measure how much of a device's throughput reaches a client of the engine.

    python -m benchmarks.gpu                        # on the first CUDA device
    python -m benchmarks.gpu --device cpu --small   # the same steps, anywhere

1. It runs the raw forward pass, compiled on CUDA, on inputs that are already on the
   device, in batches of several sizes; the fastest counts.
2. It runs the same net as a `.pt2` artifact in a real engine process; callers on its
   socket keep a few such batches waiting.
"""

import argparse
import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import msgspec
import numpy as np
import torch

from benchmarks import gpu_models
from benchmarks.gpu_models import Net
from inference.engine.clients.socket_client import SocketEngineClient
from inference.engine.devices import found
from inference.engine.signatures.signature import Layout, Signature
from inference.engine.wire.calls import PredictionCall
from inference.engine.wire.errors import EngineError
from inference.engine.wire.messages import VersionKey, VersionStatus, VersionToLoad
from inference.engine.wire.tensors import Tensor
from inference.installation.home import Home

_SIZES = (1, 8, 32, 64, 128, 256)
_SMALL_SIZES = (1, 4, 16)
# Requests per batch, and batches that wait or run.
_SHARING = 4
_WAITING = 4
_GOAL = 0.9
# Compiling for every size takes long.
_LOAD_S = 1200.0
_BYTES = 1 << 30


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--small", action="store_true", help="small nets, few sizes")
    parser.add_argument("--seconds", type=float, default=10.0)
    arguments = parser.parse_args()
    device = found.resolve(arguments.device)
    if device == "cpu" and arguments.device == "auto":
        print("No CUDA device was found: nothing to measure. Try --device cpu --small.")
        return 0
    print(f"{_title(device)}, torch {torch.__version__}")
    for net in (
        gpu_models.residual(small=arguments.small),
        gpu_models.transformer(small=arguments.small),
    ):
        sizes = _SMALL_SIZES if arguments.small else _SIZES
        net.module.eval()
        size, raw = best_forward(net, device, sizes, arguments.seconds)
        print(f"{net.name}: raw forward {raw:,.0f} rows/s in batches of {size}")
        served, notes = asyncio.run(
            through_engine(net, device, size, arguments.seconds)
        )
        share = served / raw
        verdict = "reached" if share >= _GOAL else "missed"
        print(
            f"{net.name}: engine {served:,.0f} rows/s, {share:.1%} of it (goal "
            f"{_GOAL:.0%}: {verdict}); {'; '.join(notes)}"
        )
    return 0


def _title(device: str) -> str:
    if device == "cpu":
        return f"cpu, {os.cpu_count()} cores"
    return f"{device}, {torch.cuda.get_device_name(device)}"


def best_forward(
    net: Net, device: str, sizes: tuple[int, ...], seconds: float
) -> tuple[int, float]:
    """Return the batch size with the most rows per second, and that rate."""
    # One thread per operation, as in the engine.
    torch.set_num_threads(1)
    module = net.module.to(device)
    cuda = device != "cpu"
    function = torch.compile(module, dynamic=False) if cuda else module
    rates = {}
    with torch.inference_mode():
        for size in sizes:
            inputs = torch.from_numpy(net.rows(size)).to(device)
            precise = torch.autocast("cuda", torch.bfloat16) if cuda else nullcontext()
            with precise:
                rates[size] = _rate(function, inputs, seconds / len(sizes), cuda=cuda)
    module.to("cpu")
    best = max(rates, key=lambda size: rates[size])
    return best, rates[best]


def _rate(
    function: object, inputs: torch.Tensor, seconds: float, *, cuda: bool
) -> float:
    assert callable(function)
    wait = torch.cuda.synchronize if cuda else lambda: None
    for _ in range(3):
        function(inputs)
    wait()
    rows, started = 0, time.perf_counter()
    while time.perf_counter() - started < seconds:
        for _ in range(10):
            function(inputs)
        wait()
        rows += 10 * len(inputs)
    return rows / (time.perf_counter() - started)


async def through_engine(
    net: Net, device: str, size: int, seconds: float
) -> tuple[float, tuple[str, ...]]:
    """Return the rows per second for callers of an engine process, and its notes."""
    with tempfile.TemporaryDirectory() as folder:
        home = Home(Path(folder, "home"))
        home.prepare()
        version = _artifact(net, Path(folder, "artifact"), cuda=device != "cpu")
        with _engine(home, device, size):
            client = SocketEngineClient(home.engine_socket(device.replace(":", "-")))
            try:
                status = await _loaded(client, version)
                await _served(client, net, version.key, size, min(seconds, 2.0))
                rate = await _served(client, net, version.key, size, seconds)
            finally:
                await client.close()
    return rate, status.notes


@contextmanager
def _engine(home: Home, device: str, size: int) -> Iterator[None]:
    environment = os.environ | {
        "MODELYARD_HOME": str(home.root),
        "MODELYARD_ENGINE_PLUGINS": "",
        "MODELYARD_ENGINE_MAX_BATCH_ROWS": str(size),
        "MODELYARD_ENGINE_MAX_BATCH_BYTES": str(_BYTES),
        "MODELYARD_ENGINE_MAX_QUEUE_BYTES": str(_BYTES),
        "MODELYARD_ENGINE_MAX_ENGINE_QUEUE_BYTES": str(_BYTES),
        "MODELYARD_ENGINE_LOG_LEVEL": "warning",
    }
    command = (sys.executable, "-m", "inference.engine", "--device", device)
    with subprocess.Popen(command, env=environment) as process:
        try:
            yield
        finally:
            process.terminate()


def _artifact(net: Net, folder: Path, *, cuda: bool) -> VersionToLoad:
    """Write an artifact as MLflow does, with an exported program and its signature."""
    (folder / "data").mkdir(parents=True)
    program = torch.export.export(
        net.module,
        (torch.from_numpy(net.rows(4)),),
        dynamic_shapes=({0: torch.export.Dim("rows")},),
    )
    torch.export.save(program, folder / "data" / "model.pt2")
    signature = Signature(
        layout=Layout.TENSOR,
        dtype=net.dtype,
        shape=net.shape,
        precision="bfloat16" if cuda else "float32",
    )
    return VersionToLoad(
        key=VersionKey(net.name, 1),
        path=str(folder),
        flavors=("pytorch",),
        signature=msgspec.to_builtins(signature),
    )


async def _loaded(client: SocketEngineClient, version: VersionToLoad) -> VersionStatus:
    deadline = time.monotonic() + _LOAD_S
    asked = False
    while time.monotonic() < deadline:
        try:
            if not asked:
                await client.load(version)
                asked = True
            [status] = (await client.status()).versions
        except EngineError:
            await asyncio.sleep(0.1)  # not there yet
            continue
        if status.state == "ready":
            return status
        if status.state == "failed":
            raise SystemExit(status.error)
        await asyncio.sleep(0.1)
    raise SystemExit(f"{version.key} was not ready within {_LOAD_S:.0f} s.")


async def _served(
    client: SocketEngineClient, net: Net, key: VersionKey, size: int, seconds: float
) -> float:
    rows = max(size // _SHARING, 1)
    request = (Tensor("input", np.ascontiguousarray(net.rows(rows))),)
    stop_at = time.perf_counter() + seconds
    answered = 0

    async def caller() -> None:
        nonlocal answered
        while time.perf_counter() < stop_at:
            await client.predict(PredictionCall(key, request, timeout_s=60))
            answered += rows

    started = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(size // rows * _WAITING)))
    return answered / (time.perf_counter() - started)


if __name__ == "__main__":
    sys.exit(main())
