"""Write what engines count as Prometheus metrics.

Engines have no port of their own. Each gateway asks them once a second for their
status, and the operators' port shows it. What the table does not know is left out.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from prometheus_client.core import Metric

from inference.gateway.metrics import families
from inference.metrics.table import METRICS

# For each engine by name, its EngineStatus as plain data.
Statuses = Mapping[str, Mapping[str, Any]]

_PREFIX = "engine_"
_REFUSED = "refused_"
_STATES = ("loading", "ready", "failed", "evicted")
_VERSION_COUNTS = tuple(
    name.removeprefix("version_")
    for name, measure in METRICS.items()
    if measure.labels == ("engine", "model", "version")
)


def of_engines(engines: Statuses) -> Iterator[Metric]:
    """Yield the metrics of all engines; none if there is no engine."""
    if not engines:
        return
    counts = {name: _counts(status) for name, status in engines.items()}
    for name, measure in METRICS.items():
        short = name.removeprefix(_PREFIX)
        if measure.source != "engines" or measure.labels != ("engine",):
            continue
        if measure.kind == "histogram":
            yield from families.distributions(
                name,
                [
                    ([engine], spread["buckets"], spread["total"])
                    for engine, status in engines.items()
                    if (spread := status.get("distributions", {}).get(short))
                ],
            )
            continue
        yield families.numbers(
            name,
            [
                ([engine], found[short])
                for engine, found in counts.items()
                if short in found
            ],
        )
    yield families.numbers(
        "engine_refused",
        [
            ([engine, count.removeprefix(_REFUSED)], value)
            for engine, status in engines.items()
            for count, value in status["counters"].items()
            if count.startswith(_REFUSED)
        ],
    )
    yield families.numbers(
        "engine_device_memory_bytes",
        [
            ([engine, kind], device[f"{kind}_bytes"])
            for engine, status in engines.items()
            if (device := status["device_status"])
            for kind in ("total", "used", "reserved")
        ],
    )
    yield from _versions(engines)


def _counts(status: Mapping[str, Any]) -> dict[str, float]:
    """Return an engine's counts as the table names them, times in seconds."""
    found: dict[str, float] = {"memory_bytes": status["memory_bytes"]}
    for name, value in status["counters"].items():
        if name.endswith("_us"):
            found[f"{name.removesuffix('_us')}_seconds"] = value / 1e6
        else:
            found[name] = value
    return found


def _versions(engines: Statuses) -> Iterator[Metric]:
    each: list[tuple[Sequence[str], Mapping[str, Any]]] = [
        ((engine, version["key"][0], str(version["key"][1])), version)
        for engine, status in engines.items()
        for version in status["versions"]
    ]
    for name in _VERSION_COUNTS:
        yield families.numbers(
            f"version_{name}",
            [(key, version[name]) for key, version in each if name in version],
        )
    yield families.numbers(
        "version_state",
        [
            ((*key, state), float(version["state"] == state))
            for key, version in each
            for state in _STATES
        ],
    )
