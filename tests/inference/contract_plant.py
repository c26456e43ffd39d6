"""Run a real engine with tiny real models, and publish one snapshot for both fronts."""

import asyncio
import json
import socket
import threading
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from django.utils import timezone

from accounts.customers import api_keys
from accounts.models import ApiKey
from inference.controller import publishing
from inference.engine.clients.blocking_client import BlockingEngineClient
from inference.engine.engine import EngineCore
from inference.engine.server import EngineServer
from inference.engine.settings import EngineSettings
from inference.engine.signatures.signature import (
    Column,
    Image,
    Layout,
    Param,
    Signature,
    Task,
    TensorInput,
)
from inference.engine.wire.messages import VersionKey, VersionToLoad
from inference.installation.home import Home
from inference.snapshot import snapshot_file
from inference.snapshot.contents import CallableModel, CallableVersion, EngineAddress
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
VECTORS = msgspec.structs.replace(SIZES, task=Task.EMBEDDING, labels=())
TEXTS = Signature(
    layout=Layout.TABLE,
    columns=(Column(name="text", dtype="str", max_length=10),),
)
PICTURES = Signature(
    layout=Layout.TENSOR,
    shape=(1, 2),
    task=Task.CLASSIFICATION,
    labels=("dark", "bright"),
    image=Image(mode="L", height=1, width=2),
)
TOKENS = Signature(
    layout=Layout.TENSORS,
    inputs=(TensorInput("ids", "int64", (-1,)), TensorInput("mask", "int64", (-1,))),
)
ORDERS = Signature(
    layout=Layout.TABLE,
    columns=(
        Column("placed", "datetime64[ns]"),
        Column("receipt", "bytes", required=False),
        Column("items", "json", required=False, json_schema={"type": "array"}),
        Column("count", "int64", required=False),
    ),
    params=(Param("threshold", "float64", 0.5),),
)
SIZES_KEY = VersionKey("sizes", 1)
PICTURES_KEY = VersionKey("pictures", 1)
VECTORS_KEY = VersionKey("vectors", 1)
# Its canary wants another column, and no engine has it.
TRIAL_KEY = VersionKey("trial", 1)
WIDER = msgspec.structs.replace(
    SIZES, columns=(*SIZES.columns, Column(name="depth")), shape=(3,)
)
SPELLER = msgspec.structs.replace(TEXTS, columns=(Column(name="text", dtype="str"),))
SPELLER_KEY = VersionKey("speller", 1)


def export_model(folder: Path, shape: tuple[int, ...] = (2,)) -> Path:
    """Export a model in MLflow's layout: `large` if all values sum up to over 10."""
    import torch

    class Sizes(torch.nn.Module):
        def forward(self, rows: torch.Tensor) -> torch.Tensor:
            large = rows.flatten(1).sum(dim=1) - 10
            return torch.softmax(torch.stack([-large, large], dim=1), dim=1)

    (folder / "data").mkdir(parents=True)
    program = torch.export.export(
        Sizes().eval(),
        (torch.ones(4, *shape),),
        dynamic_shapes=({0: torch.export.Dim("rows")},),
    )
    torch.export.save(program, folder / "data" / "model.pt2")
    (folder / "serving_input_example.json").write_text(
        json.dumps({"inputs": torch.tensor([1.0, 20.0]).expand(2, *shape).tolist()})
    )
    (folder / "background.json").write_text(json.dumps([[1.0, 2.0], [9.0, 9.0]]))
    return folder


SPELLER_CODE = """
import mlflow


class Speller(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        return list(model_input["text"])

    def predict_stream(self, context, model_input, params=None):
        yield from model_input["text"]


mlflow.models.set_model(Speller())
"""


def save_speller(folder: Path) -> Path:
    """Save a model that answers with one letter after the other."""
    code = folder.with_suffix(".py")
    code.write_text(SPELLER_CODE)
    with warnings.catch_warnings(action="ignore"):
        import mlflow.pyfunc
        from mlflow.models import ModelSignature
        from mlflow.types import ColSpec, Schema

        mlflow.pyfunc.save_model(
            folder,
            python_model=str(code),
            signature=ModelSignature(inputs=Schema([ColSpec("string", "text")])),
            pip_requirements=[],
        )
    return folder


class RunningEngine:
    """An engine with its server on an event loop of its own thread."""

    def __init__(self, home: Home, artifact: Path, speller: Path) -> None:
        self.path = home.engine_socket("cpu")
        self._settings = EngineSettings(home=str(home.root), warm_plugins=False)
        self._artifact = artifact
        self._speller = speller
        self._pictures = export_model(artifact / "pictures", PICTURES.shape)
        self._loop = asyncio.new_event_loop()
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        # MLflow warns while it loads a model, in any thread.
        with warnings.catch_warnings(action="ignore"):
            self._start()

    def _start(self) -> None:
        self._thread.start()
        assert self._started.wait(60)
        client = BlockingEngineClient(self.path)
        for key, signature, artifact in (
            (SIZES_KEY, SIZES, self._artifact),
            (VECTORS_KEY, VECTORS, self._artifact),
            (TRIAL_KEY, SIZES, self._artifact),
            (PICTURES_KEY, PICTURES, self._pictures),
        ):
            client.load(
                VersionToLoad(
                    key=key,
                    path=str(artifact),
                    flavors=("python_function", "pytorch"),
                    signature=msgspec.to_builtins(signature),
                )
            )
        client.load(
            VersionToLoad(
                key=SPELLER_KEY,
                path=str(self._speller),
                flavors=("python_function",),
                signature=msgspec.to_builtins(SPELLER),
                trusted=True,
            )
        )
        deadline = time.monotonic() + 60
        while True:
            versions = client.status().versions
            if all(version.state == "ready" for version in versions):
                break
            for version in versions:
                assert version.state != "failed", version.error
            assert time.monotonic() < deadline
        client.close()

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join(60)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self) -> None:
        self._stopping = asyncio.Event()
        engine = EngineCore(self._settings, on_fatal=self._stopping.set)
        server = EngineServer(engine, self.path, clock=time.monotonic)
        await server.start()
        self._started.set()
        await self._stopping.wait()
        await server.stop(1)
        engine.close()


class StuckEngine:
    """An engine that accepts connections and never answers."""

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
    revoked: str
    expired: str


def publish(home: Home, *, engine: Path, stuck: Path) -> Published:
    """Write one snapshot with models and keys for every case."""
    customer = CustomerFactory(
        plan=PlanFactory(
            name="generous",
            # The limit per minute must be the nearer one: between the calls to the two
            # fronts, a second may end.
            burst_requests=1_000_000,
            sustained_requests=100_000,
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
    revoked, expired = (issue_key(customer) for _ in range(2))
    api_keys.revoke(revoked.key)
    ApiKey.objects.filter(pk=expired.key.pk).update(expires_at=timezone.now())
    published = Published(
        key=issue_key(customer).token,
        poor=issue_key(poor).token,
        spent=issue_key(spent).token,
        narrow=issue_key(customer, allowed_models=["texts"]).token,
        predict_only=issue_key(customer, scopes=["predict"]).token,
        read_only=issue_key(customer, scopes=["models:read"]).token,
        revoked=revoked.token,
        expired=expired.token,
    )
    publishing.mark_changed()
    access = publishing.assemble(sequence=1, now=timezone.now())
    snapshot_file.write(
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
    def model(
        name: str,
        signature: Signature,
        engine: str,
        *,
        canary: Signature | None = None,
        **fields: Any,
    ) -> Any:
        version = CallableVersion(
            version=1, signature=signature, aliases=("champion",), engines=(engine,)
        )
        versions: tuple[CallableVersion, ...] = (version,)
        weight = 100 if canary is None else 0
        variants = (Variant(version=1, role="default", weight_percent=weight),)
        if canary is not None:
            versions += (CallableVersion(2, canary, engines=("gone",)),)
            variants += (Variant(version=2, role="canary", weight_percent=100),)
        return CallableModel(
            **{"name": name, "versions": versions, "variants": variants, **fields}
        )

    return (
        model("sizes", SIZES, "cpu"),
        model("texts", TEXTS, "cpu"),
        model("vectors", VECTORS, "cpu"),
        model("pictures", PICTURES, "cpu"),
        model("tokens", TOKENS, "cpu"),
        model("orders", ORDERS, "cpu"),
        model("speller", SPELLER, "cpu"),
        model("slow", SIZES, "stuck"),
        model("away", SIZES, "gone"),
        model("waiting", SIZES, "cpu", variants=()),
        # All calls are dealt to their canaries.
        model("trial", SIZES, "cpu", canary=WIDER),
        model("astray", SIZES, "cpu", canary=SIZES),
    )
