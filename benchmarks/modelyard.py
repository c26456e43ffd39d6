"""Modelyard itself, everything on, as `make run` would set it up."""

import contextlib
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from benchmarks import servers
from benchmarks.load import Target

ROOT = Path(__file__).resolve().parents[1]
MODEL = "breast-cancer"
# The demo's default.
VERSION = 2
PORT = 8420


@dataclass(frozen=True, slots=True)
class Running:
    """A ready Modelyard with its demo facts."""

    process: psutil.Process
    demo: dict[str, Any]
    home: Path

    @property
    def rows(self) -> list[dict[str, float]]:
        """The demo's real rows, by column name."""
        instances: list[dict[str, float]] = self.demo["models"][MODEL]["instances"]
        return instances

    def target(self, count: int) -> Target:
        """A predict call with `count` named-column rows, by the benchmark's key."""
        rows = self.rows
        return Target(
            url=f"{self.demo['base_url']}/api/v1/models/{MODEL}/predict",
            body={"instances": [rows[i % len(rows)] for i in range(count)]},
            headers={"Authorization": f"Bearer {self.demo['bench_api_key']}"},
        )


@contextlib.contextmanager
def running(home: Path, log: Path) -> Iterator[Running]:
    home.mkdir(parents=True, exist_ok=True)
    with servers.running(
        (sys.executable, str(ROOT / "manage.py"), "quickstart"),
        ready_url=f"http://127.0.0.1:{PORT}/readyz",
        cwd=ROOT,
        log=log,
        environment={
            "MODELYARD_HOME": str(home),
            "MODELYARD_PORT": str(PORT),
            "MODELYARD_OPERATOR_PORT": str(PORT + 1),
        },
        timeout_s=600,
    ) as process:
        yield Running(process, json.loads((home / "demo.json").read_text()), home)


def exported_model(home: Path) -> tuple[Path, Path]:
    """The default version's artifact folder, and the .pt2 file in it."""
    for desired in (home / "engine").glob("*.json"):
        for version in json.loads(desired.read_text()):
            if version["key"] == [MODEL, VERSION]:
                artifact = Path(version["path"])
                return artifact, artifact / "data" / "model.pt2"
    raise FileNotFoundError(f"no engine below {home} has {MODEL} {VERSION}")
