"""Compare protocols for the same request: `python -m benchmarks.protocols`.

It sends tensors of 1 MB as JSON and as raw bytes, the latter also to Triton; and single
rows over gRPC, 64 at once, also to MLServer. Compare only ratios within a run.
"""

import argparse
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks import environments, grpc_load, h2load, load, servers, tensor_plane
from benchmarks.data_plane import DataPlane
from benchmarks.load import Measured, Target
from benchmarks.peers import Launch, Setup, mlserver, triton
from benchmarks.tensor_plane import COLUMNS, WIDTH
from inference.dialects.open_inference.open_inference_pb2 import ModelInferRequest

WORK = Path(__file__).parent / ".work" / "protocols"
_GRPC_PORT, _PEER_PORT = 8432, 8450
# Of 1 MB each; more only wait for each other.
_CONNECTIONS = 8
_STREAMS = 64
_JSON, _RAW, _TRITON = "JSON, 1 MB", "raw, 1 MB", "Triton, raw, 1 MB"
_MESSAGES = "gRPC, 64 ModelStreamInfer"
# Connections, and calls at once on each.
_SHAPES = ((8, 8), (1, 64))
_CALLS = tuple(f"gRPC, {n} × {calls} calls" for n, calls in _SHAPES)
_MLSERVERS = {"MLServer": False, "MLServer, batching": True}


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.protocols", description=__doc__
    )
    parser.add_argument("--seconds", type=int, default=8, help="of load per case")
    parser.add_argument("--only", nargs="*", help="peers: Triton MLServer, or none")
    parser.add_argument("--grpc", action="store_true", help="no tensors of 1 MB")
    arguments = parser.parse_args()
    report(
        Console(),
        seconds=arguments.seconds,
        only=["MLServer"] if arguments.grpc else arguments.only,
        tensors=not arguments.grpc,
    )


def report(
    console: Console,
    *,
    seconds: int,
    only: list[str] | None = None,
    tensors: bool = True,
) -> None:
    """Measure and print; leave out peers that do not run."""
    WORK.mkdir(parents=True, exist_ok=True)
    tensor_plane.export(WORK)
    found: dict[str, Measured] = {}
    with tensor_plane.running(WORK, grpc_port=_GRPC_PORT) as plane:
        if tensors:
            found[_JSON] = _load(_json_target(plane), seconds)
            found[_RAW] = _load(_raw_target(plane), seconds)
        found |= _grpc(plane, seconds)
    for peer, measure in (("Triton", _triton), ("MLServer", _mlserver)):
        if only is not None and peer not in only:
            continue
        try:
            found |= measure(seconds)
        except (environments.InstallFailed, servers.NotReady) as error:
            console.print(f"[red]{peer} did not run:[/red]\n{error}")
    _print(console, found)


def _load(target: Target, seconds: int) -> Measured:
    return load.run(target, connections=_CONNECTIONS, seconds=seconds)


def _values() -> "np.ndarray[Any, np.dtype[np.float32]]":
    # Six digits, as a sensor might give.
    return np.random.default_rng(0).random((1, WIDTH)).round(6).astype(np.float32)


def _json_target(plane: DataPlane) -> Target:
    data = [round(float(value), 6) for value in _values()[0]]
    tensor = {"name": "input", "shape": [1, WIDTH], "datatype": "FP32", "data": data}
    body = {"inputs": [tensor]}
    return Target(_url(plane), body, {"Authorization": f"Bearer {plane.key.token}"})


def _raw_target(plane: DataPlane) -> Target:
    target = _raw_request(_url(plane))
    key = {"Authorization": f"Bearer {plane.key.token}"}
    return Target(target.url, target.body, {**target.headers, **key})


def _raw_request(url: str) -> Target:
    raw = _values().tobytes()
    tensor = {
        "name": "input",
        "shape": [1, WIDTH],
        "datatype": "FP32",
        "parameters": {"binary_data_size": len(raw)},
    }
    request = {"inputs": [tensor], "parameters": {"binary_data_output": True}}
    head = json.dumps(request).encode()
    return Target(
        url,
        head + raw,
        {
            "Content-Type": "application/octet-stream",
            "Inference-Header-Content-Length": str(len(head)),
        },
    )


def _url(plane: DataPlane) -> str:
    return f"http://127.0.0.1:{plane.port}/v2/models/wide/infer"


def _message(model: str) -> bytes:
    request = ModelInferRequest(model_name=model)
    request.inputs.add(name="input", datatype="FP32", shape=[1, COLUMNS])
    request.raw_input_contents.append(np.ones(COLUMNS, np.float32).tobytes())
    data: bytes = request.SerializeToString()
    return data


def _triton(seconds: int) -> dict[str, Measured]:
    setup = _set_up("triton", triton.REQUIREMENTS, net="wide")
    launch = triton.prepare(setup, columns=WIDTH, outputs=WIDTH)
    with _running(setup, launch):
        return {_TRITON: _load(_raw_request(launch.predict_url), seconds)}


def _mlserver(seconds: int) -> dict[str, Measured]:
    setup = _set_up("mlserver", mlserver.REQUIREMENTS, net="rows")
    target = f"127.0.0.1:{setup.port + 1}"
    found = {}
    for name, batching in _MLSERVERS.items():
        with _running(setup, mlserver.prepare(setup, batching=batching)):
            calls = _calls(target, _message("model"), setup.folder, seconds)
        found |= {f"{name}, {title}": measured for title, measured in calls.items()}
    return found


def _grpc(plane: DataPlane, seconds: int) -> dict[str, Measured]:
    target, row, key = f"127.0.0.1:{_GRPC_PORT}", _message("rows"), plane.key.token
    found = _calls(target, row, WORK, seconds, key=key)
    file = _written(row, WORK)
    found[_MESSAGES] = grpc_load.run(
        target, file, streams=_STREAMS, seconds=seconds, streaming=True, key=key
    )
    return found


def _calls(
    target: str, row: bytes, folder: Path, seconds: int, *, key: str = ""
) -> dict[str, Measured]:
    """Keep 64 calls of one row in flight, with h2load if it is installed."""
    if not h2load.installed():
        file = _written(row, folder)
        return {
            # As many connections as a client's process makes, of which there are two.
            _CALLS[0]: grpc_load.run(
                target, file, streams=_STREAMS, seconds=seconds, key=key
            )
        }
    return {
        title: h2load.run(
            target, row, connections=number, calls=calls, seconds=seconds, key=key
        )
        for title, (number, calls) in zip(_CALLS, _SHAPES, strict=True)
    }


def _written(row: bytes, folder: Path) -> Path:
    file = folder / "row.bin"
    file.write_bytes(row)
    return file


def _set_up(name: str, requirements: tuple[str, ...], *, net: str) -> Setup:
    folder = WORK / name
    folder.mkdir(exist_ok=True)
    return Setup(
        environment=environments.ensure(name, requirements),
        folder=folder,
        artifact=WORK / net,
        exported=tensor_plane.exported(WORK, net),
        port=_PEER_PORT,
    )


@contextmanager
def _running(setup: Setup, launch: Launch) -> Iterator[None]:
    with servers.running(
        launch.command,
        ready_url=launch.ready_url,
        cwd=setup.folder,
        log=setup.folder / "server.log",
        environment=launch.environment,
    ):
        yield


def _print(console: Console, found: dict[str, Measured]) -> None:
    table = Table(title="One request in several forms")
    for column in ("form", "requests per second", "p50 ms", "p99 ms", "failed"):
        table.add_column(column, justify="left" if column == "form" else "right")
    for title, measured in found.items():
        table.add_row(
            title,
            f"{measured.requests_per_s:,.0f}",
            f"{measured.p50_ms:.2f}",
            f"{measured.p99_ms:.2f}",
            str(measured.failures),
        )
    console.print(table)
    client = "h2load" if h2load.installed() else "Python's client: install h2load"
    console.print(f"gRPC calls were made by {client}.")
    pairs = [
        ("raw against JSON", _RAW, _JSON),
        ("raw against Triton's raw", _RAW, _TRITON),
        *(
            (f"{calls}, against {name}'s", calls, f"{name}, {calls}")
            for calls in _CALLS
            for name in _MLSERVERS
        ),
    ]
    for title, ours, other in pairs:
        if ours in found and other in found and found[other].requests_per_s:
            ratio = found[ours].requests_per_s / found[other].requests_per_s
            console.print(f"{title}: {ratio:.2f}×")


if __name__ == "__main__":
    main()
