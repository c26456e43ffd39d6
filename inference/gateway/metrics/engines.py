"""Write what engines count as Prometheus metrics.

Engines have no port of their own. Each gateway asks them once a second for their
status, and the operators' port shows it.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

# For each engine by name, its EngineStatus as plain data.
Statuses = Mapping[str, Mapping[str, Any]]

_COUNTERS = {
    "batches": "Forward passes.",
    "inline_batches": "Forward passes without a thread, since they are short.",
    "rows": "Rows predicted.",
    "job_rows": "Rows predicted for jobs, which give way to others.",
    "late": "Requests dropped because their deadline passed while they waited.",
    "left": "Requests dropped because their caller left.",
    "model_errors": "Forward passes that failed.",
    "explanations": "Explanations accepted.",
    "streams": "Streams begun.",
    "stream_chunks": "Chunks sent in streams.",
    "evictions": "Versions that left the memory for others.",
    "demand_loads": "Calls that made a version load again.",
    "malformed_frames": "Connections closed because of a malformed frame.",
    "connections": "Connections accepted.",
    "pieces": "Parts of requests that were too long for one forward pass.",
    "dropped_between_pieces": "Requests dropped after some of their parts had run.",
    "memory_halvings": "Batches run as two halves because memory was short.",
    "graphs_captured": "Sizes of batches that got a graph of their own.",
    "graph_fallbacks": "Versions that run without graphs for some of their sizes.",
    "graph_batches": "Forward passes through a graph.",
    "eager_batches": "Forward passes of a size without a graph.",
    "filled_rows": "Rows computed only to fill up a batch.",
}
_GAUGES = {
    "unanswered": "Requests accepted and not answered yet.",
    "running_streams": "Streams running.",
    "queued_rows": "Rows that wait.",
    "queued_bytes": "Bytes of input that wait.",
    "versions_memory_bytes": "Memory of the loaded versions.",
    "memory_budget_bytes": "Memory that loaded versions may take.",
}
_REFUSED = (
    "queue_rows",
    "queue_bytes",
    "queue_time",
    "engine_room",
    "streams",
    "explanations",
)
_VERSION_GAUGES = {
    "queued_rows": "Rows that wait for a version.",
    "queued_bytes": "Bytes of input that wait for a version.",
    "memory_bytes": "Memory of a version, measured when it was loaded.",
}
_STATES = ("loading", "ready", "failed", "evicted")


def of_engines(engines: Statuses) -> Iterator[Metric]:
    """Yield the metrics of all engines; none if there is no engine."""
    if not engines:
        return
    for name in _counter_names(engines):
        about = _COUNTERS.get(name, f"Counted by engines as {name}.")
        yield _counted(CounterMetricFamily, engines, name, about)
    busy = CounterMetricFamily(
        "modelyard_engine_busy_seconds", "Time of the device.", labels=["engine"]
    )
    refused = CounterMetricFamily(
        "modelyard_engine_refused",
        "Requests refused, by the bound that was reached.",
        labels=["engine", "bound"],
    )
    for engine, status in engines.items():
        busy.add_metric([engine], status["counters"].get("busy_us", 0) / 1e6)
        for bound in _REFUSED:
            value = status["counters"].get(f"refused_{bound}", 0)
            refused.add_metric([engine, bound], value)
    yield busy
    yield refused
    for name, about in _GAUGES.items():
        yield _counted(GaugeMetricFamily, engines, name, about)
    memory = GaugeMetricFamily(
        "modelyard_engine_memory_bytes", "Memory of the process.", labels=["engine"]
    )
    for engine, status in engines.items():
        memory.add_metric([engine], status["memory_bytes"])
    yield memory
    yield _devices(engines)
    yield from _versions(engines)


def _counter_names(engines: Statuses) -> list[str]:
    """Return the names of all counters, also of those not described here."""
    counted = {name for status in engines.values() for name in status["counters"]}
    special = {"busy_us", "refused", *(f"refused_{bound}" for bound in _REFUSED)}
    return sorted(counted - special - _GAUGES.keys())


def _counted(
    kind: type[CounterMetricFamily] | type[GaugeMetricFamily],
    engines: Statuses,
    name: str,
    about: str,
) -> Metric:
    family = kind(f"modelyard_engine_{name}", about, labels=["engine"])
    for engine, status in engines.items():
        family.add_metric([engine], status["counters"].get(name, 0))
    return family


def _devices(engines: Statuses) -> Metric:
    family = GaugeMetricFamily(
        "modelyard_engine_device_memory_bytes",
        "Memory of the device: all, used by anybody, and reserved by this engine.",
        labels=["engine", "kind"],
    )
    for engine, status in engines.items():
        device = status["device_status"]
        for kind in ("total", "used", "reserved") if device else ():
            family.add_metric([engine, kind], device[f"{kind}_bytes"])
    return family


def _versions(engines: Statuses) -> Iterator[Metric]:
    labels = ["engine", "model", "version"]
    each = [
        ((engine, version["key"][0], str(version["key"][1])), version)
        for engine, status in engines.items()
        for version in status["versions"]
    ]
    for name, about in _VERSION_GAUGES.items():
        family = GaugeMetricFamily(f"modelyard_version_{name}", about, labels=labels)
        for key, version in each:
            family.add_metric(key, version[name])
        yield family
    states = GaugeMetricFamily(
        "modelyard_version_state",
        "1 for the state a version is in.",
        labels=[*labels, "state"],
    )
    for key, version in each:
        for state in _STATES:
            states.add_metric([*key, state], int(version["state"] == state))
    yield states
