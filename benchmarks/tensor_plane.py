"""Run a gateway and an engine with two nets, to compare protocols.

`wide` doubles a tensor of 1 MB; `rows` is a small net over rows of 30 numbers.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from accounts.admission.limits import Limits
from benchmarks.data_plane import DataPlane
from inference.engine.signatures.signature import Layout, Signature
from inference.engine.wire.messages import VersionKey, VersionToLoad
from inference.snapshot import snapshot_file
from inference.snapshot.contents import (
    AccessCustomer,
    AccessKey,
    CallableModel,
    CallableVersion,
    EngineAddress,
    Snapshot,
)
from registry.routing import Variant

WIDTH = 262_144
COLUMNS = 30
MODELS = {
    "wide": Signature(layout=Layout.TENSOR, shape=(WIDTH,)),
    "rows": Signature(layout=Layout.TENSOR, shape=(COLUMNS,)),
}


def export(folder: Path) -> None:
    """Write each net's .pt2 file in the place where MLflow writes it."""
    import torch

    class Doubled(torch.nn.Module):
        def forward(self, rows: torch.Tensor) -> torch.Tensor:
            return rows * 2

    nn = torch.nn
    small = nn.Sequential(
        *(nn.Linear(COLUMNS, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU()),
        *(nn.Linear(64, 2), nn.Softmax(dim=1)),
    )
    for name, net, width in (("wide", Doubled(), WIDTH), ("rows", small, COLUMNS)):
        file = exported(folder, name)
        if file.exists():
            continue
        file.parent.mkdir(parents=True, exist_ok=True)
        program = torch.export.export(
            net.eval(),
            (torch.ones(2, width),),
            dynamic_shapes=({0: torch.export.Dim("rows")},),
        )
        torch.export.save(program, file)


def exported(folder: Path, name: str) -> Path:
    return folder / name / "data" / "model.pt2"


@contextmanager
def running(folder: Path, *, grpc_port: int, **environment: str) -> Iterator[DataPlane]:
    """Serve both nets until the block ends."""
    plane = DataPlane(
        folder / "home",
        MODELYARD_GRPC_PORT=str(grpc_port),
        # The JSON form of 1 MB is larger than JSON may be by default.
        MODELYARD_MAX_BODY_BYTES=str(16 * 1024 * 1024),
        **environment,
    )
    try:
        plane.start_engine()
        plane.wait(lambda: plane.status() is not None, what="the engine")
        for name, signature in MODELS.items():
            plane.engine.load(
                VersionToLoad(
                    key=VersionKey(name, 1),
                    path=str(folder / name),
                    flavors=("python_function", "pytorch"),
                    signature=msgspec.to_builtins(signature),
                )
            )
        snapshot_file.write(plane.home.snapshot, _snapshot(plane))
        plane.wait(lambda: _all_ready(plane), what="the models")
        plane.start_gateway()
        plane.wait_listening()
        yield plane
    finally:
        plane.stop()


def _all_ready(plane: DataPlane) -> bool:
    status: Any = plane.status()
    failed = [v for v in status.versions if v.state == "failed"]
    assert not failed, failed
    return all(version.state == "ready" for version in status.versions)


def _snapshot(plane: DataPlane) -> Snapshot:
    return Snapshot(
        sequence=1,
        published_at=time.time(),
        models=tuple(
            CallableModel(
                name=name,
                versions=(
                    CallableVersion(version=1, signature=signature, engines=("cpu",)),
                ),
                variants=(Variant(version=1, role="default", weight_percent=100),),
                routed=True,
            )
            for name, signature in MODELS.items()
        ),
        keys=(
            AccessKey(
                key_id=plane.key.key_id,
                digest=plane.key.digest,
                customer_id=1,
                scopes=("predict",),
            ),
        ),
        customers=(
            AccessCustomer(customer_id=1, limits=Limits(plan="free", rates=())),
        ),
        engines=(
            EngineAddress(name="cpu", address=str(plane.home.engine_socket("cpu"))),
        ),
    )
