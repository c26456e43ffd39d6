"""Measure the cost of keys, limits, quotas, metering: `python -m benchmarks.accounts`.

Beside a running Modelyard, gateways without accounts (`benchmarks.null_accounts`) serve
the same models from the same engine. Both get load in turns, several times, so that
other work on the machine disturbs both alike. It prints the ratio of the medians.
"""

import argparse
import contextlib
import dataclasses
import os
import platform
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path

from benchmarks import load, modelyard, servers
from benchmarks.load import Target
from inference.gateway.settings import gateway_names

WORK = Path(__file__).parent / ".work"
_CONNECTIONS = 64
_ROUNDS = 5
# Greatest allowed loss of throughput through accounts, by the number of gateways.
_MOST = {1: 0.15, 2: 0.25}
_PORT = 8446


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=5, help="of each round")
    arguments = parser.parse_args()
    WORK.mkdir(exist_ok=True)
    print(f"{platform.processor()}, {os.cpu_count()} cores")
    for gateways, most in _MOST.items():
        ours, without = _measure(gateways, arguments.seconds)
        lost = 1 - ours / without
        verdict = "within" if lost <= most else "beyond"
        print(
            f"{gateways} gateway(s): {ours:,.0f} requests/s with accounts,"
            f" {without:,.0f} without: {lost:.1%} lost, {verdict} {most:.0%}"
        )


def _measure(gateways: int, seconds: int) -> tuple[float, float]:
    """Return requests per second with and without accounts."""
    log = WORK / f"accounts-{gateways}.log"
    with (
        modelyard.running(WORK / "home", log, gateways=gateways) as ours,
        _null_gateways(gateways),
    ):
        target = ours.target(1)
        without = dataclasses.replace(
            target, url=target.url.replace(f":{modelyard.PORT}/", f":{_PORT}/")
        )
        rates: dict[str, list[float]] = {target.url: [], without.url: []}
        for _ in range(_ROUNDS):
            for one in (target, without):
                rates[one.url].append(_load(one, seconds))
        return (
            statistics.median(rates[target.url]),
            statistics.median(rates[without.url]),
        )


def _load(target: Target, seconds: int) -> float:
    measured = load.run(target, connections=_CONNECTIONS, seconds=seconds)
    if measured.failures:
        raise RuntimeError(f"{measured.failures} calls to {target.url} failed")
    return measured.requests_per_s


@contextlib.contextmanager
def _null_gateways(count: int) -> Iterator[None]:
    with contextlib.ExitStack() as running:
        for name in gateway_names(count):
            running.enter_context(
                servers.running(
                    (sys.executable, "-m", "benchmarks.null_accounts"),
                    ready_url=f"http://127.0.0.1:{_PORT}/readyz",
                    cwd=modelyard.ROOT,
                    log=WORK / f"null-{name}.log",
                    environment={
                        "MODELYARD_HOME": str(WORK / "home"),
                        "MODELYARD_PORT": str(_PORT),
                        "MODELYARD_OPERATOR_PORT": str(_PORT + 1),
                        "MODELYARD_GATEWAYS": str(count),
                        "MODELYARD_PROCESS": name,
                        "LOG_LEVEL": "WARNING",
                    },
                )
            )
        yield


if __name__ == "__main__":
    main()
