"""A real engine with a tiny real model, and one snapshot for both fronts."""

import asyncio
import json
import socket
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from django.utils import timezone

from inference import publishing, snapshot
from inference.engine.client import BlockingEngineClient
from inference.engine.engine import Engine
from inference.engine.messages import VersionKey, VersionToLoad
from inference.engine.server import EngineServer
from inference.engine.settings import EngineSettings
from inference.engine.signature import Column, Layout, Signature, Task
from inference.home import Home
from inference.snapshot import CallableModel, CallableVersion, EngineAddress
from registry.routing import Variant
from tests.factories import CustomerFactory, PlanFactory, issue_key

SIZES = Signature(
    layout=Layout.MATRIX,
    columns=(
        Column(name="width", minimum=0, maximum=100),
        Column(name="height"),
    ),
    shape=(2,),
    task=Task.CLASSIFICATION,
    labels=("small", "large"),
    low_confidence_below=0.6,
    background="background.json",
)
TEXTS = Signature(
    layout=Layout.TABLE,
    columns=(Column(name="text", dtype="str", max_length=10),),
)
SIZES_KEY = VersionKey("sizes", 1)


def export_model(folder: Path) -> Path:
    """Export `large` where width + height > 10, as MLflow lays models out."""
    import torch

    class Sizes(torch.nn.Module):
        def forward(self, rows: torch.Tensor) -> torch.Tensor:
            large = rows.sum(dim=1) - 10
            return torch.softmax(torch.stack([-large, large], dim=1), dim=1)

    (folder / "data").mkdir(parents=True)
    program = torch.export.export(
        Sizes().eval(),
        (torch.ones(4, 2),),
        dynamic_shapes=({0: torch.export.Dim("rows")},),
    )
    torch.export.save(program, folder / "data" / "model.pt2")
    (folder / "serving_input_example.json").write_text(
        json.dumps({"inputs": [[1.0, 2.0], [20.0, 1.0]]})
    )
    (folder / "background.json").write_text(json.dumps([[1.0, 2.0], [9.0, 9.0]]))
    return folder


class RunningEngine:
    """An engine with its server on an event loop of its own thread."""

    def __init__(self, home: Home, artifact: Path) -> None:
        self.path = home.engine_socket("cpu")
        self._settings = EngineSettings(home=str(home.root), warm_plugins=False)
        self._artifact = artifact
        self._loop = asyncio.new_event_loop()
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        self._thread.start()
        assert self._started.wait(30)
        client = BlockingEngineClient(self.path)
        client.load(
            VersionToLoad(
                key=SIZES_KEY,
                path=str(self._artifact),
                flavors=("python_function", "pytorch"),
                signature=msgspec.to_builtins(SIZES),
            )
        )
        deadline = time.monotonic() + 60
        while True:
            (version,) = client.status().versions
            if version.state == "ready":
                break
            assert version.state == "loading", version.error
            assert time.monotonic() < deadline
        client.close()

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join(30)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self) -> None:
        self._stopping = asyncio.Event()
        engine = Engine(self._settings, on_fatal=self._stopping.set)
        server = EngineServer(engine, self.path, clock=time.monotonic)
        await server.start()
        self._started.set()
        await self._stopping.wait()
        await server.stop(1)
        engine.close()


class StuckEngine:
    """Accepts connections and never answers."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.bind(str(path))
        self._socket.listen()

    def stop(self) -> None:
        self._socket.close()
        self.path.unlink()


@dataclass
class Published:
    """The tokens of the keys in the snapshot."""

    key: str
    poor: str
    spent: str
    narrow: str
    predict_only: str
    read_only: str


def publish(home: Home, *, engine: Path, stuck: Path) -> Published:
    """Write one snapshot with models and keys for every case."""
    customer = CustomerFactory(
        plan=PlanFactory(
            name="generous",
            burst_requests=100_000,
            sustained_requests=1_000_000,
            daily_quota=None,
            max_predict_rows=3,
            max_batch_rows=5,
        )
    )
    poor = CustomerFactory(
        plan=PlanFactory(name="poor", burst_requests=100, sustained_requests=1)
    )
    spent = CustomerFactory(
        plan=PlanFactory(name="spent", daily_quota=2, quota_unit="rows")
    )
    published = Published(
        key=issue_key(customer).token,
        poor=issue_key(poor).token,
        spent=issue_key(spent).token,
        narrow=issue_key(customer, allowed_models=["texts"]).token,
        predict_only=issue_key(customer, scopes=["predict"]).token,
        read_only=issue_key(customer, scopes=["models:read"]).token,
    )
    publishing.mark_changed()
    access = publishing.assemble(sequence=1, now=timezone.now())
    snapshot.write(
        home.snapshot,
        msgspec.structs.replace(
            access,
            models=_models(),
            engines=(
                EngineAddress("cpu", str(engine)),
                EngineAddress("stuck", str(stuck)),
                EngineAddress("gone", str(home.run / "gone.sock")),
            ),
            site_default_model="sizes",
        ),
    )
    return published


def _models() -> tuple[CallableModel, ...]:
    def model(name: str, signature: Signature, engine: str, **fields: Any) -> Any:
        version = CallableVersion(version=1, signature=signature, aliases=("champion",))
        default = Variant(version=1, role="default", weight_percent=100)
        return CallableModel(
            **{
                "name": name,
                "versions": (version,),
                "variants": (default,),
                "engines": (engine,),
                **fields,
            }
        )

    return (
        model("sizes", SIZES, "cpu"),
        model("texts", TEXTS, "cpu"),
        model("slow", SIZES, "stuck"),
        model("away", SIZES, "gone"),
        model("waiting", SIZES, "cpu", variants=()),
    )
