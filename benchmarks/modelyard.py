"""Run Modelyard itself with everything on, as `make run` sets it up."""

import contextlib
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil

from benchmarks import servers
from benchmarks.load import Target

ROOT = Path(__file__).resolve().parents[1]
MODEL = "breast-cancer"
# The demo's default.
VERSION = 2
# Pages that a person opens during predictions, one each half second.
_PAGES = (
    "/admin/",
    "/admin/registry/modelversion/",
    "/admin/registry/route/",
    "/admin/accounts/customer/",
    "/admin/accounts/usage/",
    "/admin/inference/engine/",
)
_PAGE_EVERY_S = 0.5
_SIGN_IN = "/admin/login/"
PORT = 8420


@dataclass(frozen=True, slots=True)
class Running:
    """A ready Modelyard with its demo facts."""

    process: psutil.Process
    demo: dict[str, Any]
    home: Path
    environment: dict[str, str]

    @property
    def rows(self) -> list[dict[str, float]]:
        """The demo's real rows, by column name."""
        instances: list[dict[str, float]] = self.demo["models"][MODEL]["instances"]
        return instances

    def target(self, count: int, *, named: bool = True) -> Target:
        """Return a predict call with `count` rows and the benchmark's key."""
        rows = self.rows if named else [list(row.values()) for row in self.rows]
        return Target(
            url=f"{self.demo['base_url']}/api/v1/models/{MODEL}/predict",
            body={"instances": [rows[i % len(rows)] for i in range(count)]},
            headers={"Authorization": f"Bearer {self.demo['bench_api_key']}"},
        )

    def manage(self, *arguments: str) -> str:
        """Run a command of `manage.py`, and return what it prints."""
        return subprocess.run(
            (sys.executable, str(ROOT / "manage.py"), *arguments),
            cwd=ROOT,
            env=os.environ | self.environment,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        ).stdout

    def signed_in(self, path: str, who: str) -> dict[str, str]:
        """Sign in at `path` as the demo's `admin` or `customer`; return the headers."""
        with httpx.Client(base_url=self.demo["base_url"], timeout=30) as client:
            form = client.get(path).text
            found = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', form)
            assert found is not None, "the page has no form"
            response = client.post(
                path,
                data={
                    "username": self.demo[f"{who}_user"],
                    "password": self.demo[f"{who}_password"],
                    "csrfmiddlewaretoken": found[1],
                    "next": path,
                },
                headers={"Referer": f"{self.demo['base_url']}{path}"},
            )
            assert response.status_code == 302, f"the demo's {who} cannot sign in"
            pairs = [f"{name}={value}" for name, value in client.cookies.items()]
            return {"Cookie": "; ".join(pairs)}


@contextlib.contextmanager
def running(home: Path, log: Path, *, gateways: int = 1) -> Iterator[Running]:
    home.mkdir(parents=True, exist_ok=True)
    environment = {
        "MODELYARD_HOME": str(home),
        "MODELYARD_PORT": str(PORT),
        "MODELYARD_OPERATOR_PORT": str(PORT + 1),
        "MODELYARD_GATEWAYS": str(gateways),
    }
    with servers.running(
        (sys.executable, str(ROOT / "manage.py"), "quickstart"),
        ready_url=f"http://127.0.0.1:{PORT}/readyz",
        cwd=ROOT,
        log=log,
        environment=environment,
        timeout_s=600,
    ) as process:
        demo = json.loads((home / "demo.json").read_text())
        yield Running(process, demo, home, environment)


def exported_model(home: Path) -> tuple[Path, Path]:
    """The default version's artifact folder, and the .pt2 file in it."""
    for desired in (home / "engine").glob("c*.json"):
        for version in json.loads(desired.read_text()):
            if version["key"] == [MODEL, VERSION]:
                artifact = Path(version["path"])
                return artifact, artifact / "data" / "model.pt2"
    raise FileNotFoundError(f"no engine below {home} has {MODEL} {VERSION}")


@contextlib.contextmanager
def clicking_through_the_admin(running: Running) -> Iterator[list[float]]:
    """Open page after page while the block runs; yield the seconds each took."""
    stop = threading.Event()
    took: list[float] = []
    base_url, staff = running.demo["base_url"], running.signed_in(_SIGN_IN, "admin")
    with httpx.Client(base_url=base_url, headers=staff, timeout=30) as client:

        def click() -> None:
            while not stop.is_set():
                for page in _PAGES:
                    response = client.get(page).raise_for_status()
                    took.append(response.elapsed.total_seconds())
                    if stop.wait(_PAGE_EVERY_S):
                        return

        person = threading.Thread(target=click)
        person.start()
        try:
            yield took
        finally:
            stop.set()
            person.join()
