"""Measure Modelyard and its peers, one after another, in one run: `make bench`.

Prints requests per second, latencies, memory and the ratios, and writes them to
benchmarks/results/. Compare only ratios within a run, never figures of different runs
or machines.
"""

import argparse
import json
import os
import platform
import shutil
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks import environments, load, modelyard, servers
from benchmarks.load import Measured, Target
from benchmarks.peers import (
    Launch,
    NamedRows,
    Peer,
    Setup,
    bentoml,
    litserve,
    mlflow,
    mlserver,
    triton,
)

PEERS = (
    *litserve.PEERS,
    *mlserver.PEERS,
    *mlflow.PEERS,
    *bentoml.PEERS,
    *triton.PEERS,
)
OURS, TRITON = "Modelyard", "Triton"
SEVERAL = "Modelyard, 2 gateways"


@dataclass(frozen=True, slots=True)
class Case:
    """Requests with `rows` rows over `connections`; `named`: by name if a peer can."""

    title: str
    rows: int
    connections: int
    named: bool = False


_BY_POSITION = "100 rows × 16"
_NAMED = "100 named rows × 16"
# Modelyard gets named columns in all cases but one.
CASES = (
    Case("1 row × 1", 1, 1),
    Case("1 row × 64", 1, 64),
    Case(_BY_POSITION, 100, 16),
    Case(_NAMED, 100, 16, named=True),
)
WORK = Path(__file__).parent / ".work"
RESULTS = Path(__file__).parent / "results"
_PORT = 8440
_SETTLE_S = 10


def main() -> None:
    arguments = _arguments()
    console = Console()
    WORK.mkdir(exist_ok=True)
    if arguments.fresh:
        shutil.rmtree(WORK / "home", ignore_errors=True)

    results: dict[str, dict[str, Any]] = {}
    with console.status("Modelyard") as status:
        with modelyard.running(WORK / "home", WORK / "modelyard.log") as ours:
            targets = [_own_target(ours, case) for case in CASES]
            results[OURS] = _measure(targets, ours.process, arguments.seconds)
            with modelyard.clicking_through_the_admin(ours) as pages:
                clicked = load.run(
                    targets[1], connections=64, seconds=arguments.seconds
                )
            rows = ours.rows
        status.update(SEVERAL)
        with modelyard.running(
            WORK / "home", WORK / "modelyard-2.log", gateways=2
        ) as ours:
            targets = [_own_target(ours, case) for case in CASES]
            results[SEVERAL] = _measure(targets, ours.process, arguments.seconds)
        artifact, exported = modelyard.exported_model(WORK / "home")
        for peer in PEERS:
            if arguments.only and peer.family not in arguments.only:
                continue
            status.update(peer.name)
            try:
                results[peer.name] = _measure_peer(
                    peer, artifact, exported, rows, arguments.seconds
                )
            except (environments.InstallFailed, servers.NotReady) as error:
                console.print(f"[red]{peer.name} did not run:[/red]\n{error}")
    _report(console, results)
    console.print(
        f"While someone clicks through the admin ({len(pages)} pages, the slowest "
        f"{max(pages, default=0):.1f} s), 1 row × 64: {_cell(clicked)}, p99 is "
        f"{clicked.p99_ms / clicked.p50_ms:.1f} × p50."
    )
    if TRITON in results:
        # Triton names inputs, not columns; one tensor for all is cheapest for it.
        ratio = _rate(results, OURS, _NAMED) / _rate(results, TRITON, _BY_POSITION)
        console.print(f"Our named rows against Triton's by position: {ratio:.2f}×.")
    _save(results, arguments.seconds)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--seconds", type=int, default=8, help="of load per case")
    parser.add_argument(
        "--only", nargs="*", help="families of peers, e.g. Triton LitServe"
    )
    parser.add_argument(
        "--fresh", action="store_true", help="set Modelyard up from nothing"
    )
    return parser.parse_args()


def _measure_peer(
    peer: Peer, artifact: Path, exported: Path, rows: NamedRows, seconds: int
) -> dict[str, Any]:
    folder = WORK / peer.name.lower().replace(" ", "-").replace(",", "")
    folder.mkdir(exist_ok=True)
    setup = Setup(
        environment=environments.ensure(peer.family.lower(), peer.requirements),
        folder=folder,
        artifact=artifact,
        exported=exported,
        port=_PORT,
        columns=tuple(rows[0]),
    )
    launch = peer.prepare(setup)
    with servers.running(
        launch.command,
        ready_url=launch.ready_url,
        cwd=folder,
        log=folder / "server.log",
        environment=launch.environment,
    ) as process:
        targets = [_target(launch, rows, case) for case in CASES]
        return _measure(targets, process, seconds)


def _own_target(ours: modelyard.Running, case: Case) -> Target:
    # A single row has names; rows by position only serve to compare many rows.
    return ours.target(case.rows, named=case.named or case.rows == 1)


def _target(launch: Launch, rows: NamedRows, case: Case) -> Target:
    asked = [rows[i % len(rows)] for i in range(case.rows)]
    if case.named and launch.named_body is not None:
        return Target(launch.named_url or launch.predict_url, launch.named_body(asked))
    return Target(
        launch.predict_url, launch.body([list(row.values()) for row in asked])
    )


def _measure(targets: list[Target], process: Any, seconds: int) -> dict[str, Any]:
    # Do not measure what a server still does after it says that it is ready.
    time.sleep(_SETTLE_S)
    cases = {
        case.title: load.run(target, connections=case.connections, seconds=seconds)
        for target, case in zip(targets, CASES, strict=True)
    }
    return {"cases": cases, "memory_mb": servers.memory_mb(process)}


def _report(console: Console, results: dict[str, dict[str, Any]]) -> None:
    table = Table(title="Requests per second (p50 / p99 in ms)")
    table.add_column("server")
    for case in CASES:
        table.add_column(case.title, justify="right")
    table.add_column("memory", justify="right")
    for name, result in results.items():
        table.add_row(
            name,
            *(_cell(measured) for measured in result["cases"].values()),
            f"{result['memory_mb']:.0f} MB",
        )
    console.print(table)
    for ours in (OURS, SEVERAL):
        ratios = Table(title=f"{ours} against")
        ratios.add_column("server")
        for case in CASES:
            ratios.add_column(case.title, justify="right")
        for name, others in _opponents(results).items():
            cells = (_ratio(results, ours, others, case.title) for case in CASES)
            ratios.add_row(name, *cells)
        console.print(ratios)


def _opponents(results: dict[str, dict[str, Any]]) -> dict[str, list[str]]:
    python = [name for name in results if name not in (OURS, SEVERAL, TRITON)]
    groups = {"the best Python peer": python, **{name: [name] for name in python}}
    if TRITON in results:
        groups[TRITON] = [TRITON]
    return {name: others for name, others in groups.items() if others}


def _ratio(
    results: dict[str, Any], measured: str, others: list[str], title: str
) -> str:
    ours = results[measured]["cases"][title]
    rate = max(_rate(results, name, title) for name in others)
    p50 = min(results[name]["cases"][title].p50_ms for name in others)
    if not rate:
        return "–"
    return f"{ours.requests_per_s / rate:.2f}× rate, {ours.p50_ms / p50:.2f}× p50"


def _rate(results: dict[str, Any], name: str, title: str) -> float:
    rate: float = results[name]["cases"][title].requests_per_s
    return rate


def _cell(measured: Measured) -> str:
    text = (
        f"{measured.requests_per_s:,.0f} "
        f"({measured.p50_ms:.2f} / {measured.p99_ms:.2f})"
    )
    return (
        f"{text} [red]{measured.failures} failed[/red]" if measured.failures else text
    )


def _save(results: dict[str, dict[str, Any]], seconds: int) -> None:
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{time.strftime('%Y%m%d-%H%M%S')}.json"
    document = {
        "machine": {
            "cpus": os.cpu_count(),
            "kernel": platform.release(),
            "python": platform.python_version(),
        },
        "seconds": seconds,
        "results": {
            name: {
                "memory_mb": round(result["memory_mb"]),
                "cases": {
                    title: asdict(measured)
                    for title, measured in result["cases"].items()
                },
            }
            for name, result in results.items()
        },
    }
    path.write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
