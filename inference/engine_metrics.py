"""What engines count, as Prometheus text. Pure.

Engines have no port of their own: each gateway asks them once a second for their
status, and the operators' port shows what it heard.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from inference.metrics import label_text

# By name of the engine: its EngineStatus as plain data.
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
    "malformed_frames": "Connections closed because of nonsense.",
    "connections": "Connections accepted.",
    "memory_halvings": "Batches run as two halves for want of memory.",
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
_REFUSED = ("queue_rows", "queue_bytes", "queue_time", "engine_room", "streams")
_VERSION_GAUGES = {
    "queued_rows": "Rows that wait for a version.",
    "queued_bytes": "Bytes of input that wait for a version.",
    "memory_bytes": "Memory of a version, measured when it was loaded.",
}
_STATES = ("loading", "ready", "failed", "evicted")


def render(engines: Statuses) -> str:
    return "".join(f"{line}\n" for line in _lines(engines)) if engines else ""


def _lines(engines: Statuses) -> Iterator[str]:
    for name in _counter_names(engines):
        about = _COUNTERS.get(name, f"Counted by engines as {name}.")
        yield from _head(f"engine_{name}_total", about, "counter")
        yield from _values(engines, f"engine_{name}_total", name)
    yield from _head("engine_busy_seconds_total", "Time of the device.", "counter")
    for engine, status in engines.items():
        seconds = status["counters"].get("busy_us", 0) / 1e6
        yield f"modelyard_engine_busy_seconds_total{{{_label(engine)}}} {seconds:.10g}"
    about = "Requests refused, by the bound that was reached."
    yield from _head("engine_refused_total", about, "counter")
    for engine, status in engines.items():
        for bound in _REFUSED:
            value = status["counters"].get(f"refused_{bound}", 0)
            labels = f'{_label(engine)},bound="{bound}"'
            yield f"modelyard_engine_refused_total{{{labels}}} {value}"
    for name, about in _GAUGES.items():
        yield from _head(f"engine_{name}", about, "gauge")
        yield from _values(engines, f"engine_{name}", name)
    yield from _head("engine_memory_bytes", "Memory of the process.", "gauge")
    for engine, status in engines.items():
        value = status["memory_bytes"]
        yield f"modelyard_engine_memory_bytes{{{_label(engine)}}} {value}"
    yield from _devices(engines)
    yield from _versions(engines)


def _counter_names(engines: Statuses) -> list[str]:
    """Name what engines count, also what is not described here."""
    counted = {name for status in engines.values() for name in status["counters"]}
    special = {"busy_us", "refused", *(f"refused_{bound}" for bound in _REFUSED)}
    return sorted(counted - special - _GAUGES.keys())


def _values(engines: Statuses, family: str, counter: str) -> Iterator[str]:
    for engine, status in engines.items():
        value = status["counters"].get(counter, 0)
        yield f"modelyard_{family}{{{_label(engine)}}} {value}"


def _devices(engines: Statuses) -> Iterator[str]:
    about = "Memory of the device: all, used by anybody, and reserved by this engine."
    yield from _head("engine_device_memory_bytes", about, "gauge")
    for engine, status in engines.items():
        device = status["device_status"]
        for kind in ("total", "used", "reserved") if device else ():
            labels = f'{_label(engine)},kind="{kind}"'
            value = device[f"{kind}_bytes"]
            yield f"modelyard_engine_device_memory_bytes{{{labels}}} {value}"


def _versions(engines: Statuses) -> Iterator[str]:
    for name, about in _VERSION_GAUGES.items():
        yield from _head(f"version_{name}", about, "gauge")
        for labels, version in _each_version(engines):
            yield f"modelyard_version_{name}{{{labels}}} {version[name]}"
    yield from _head("version_state", "1 for the state a version is in.", "gauge")
    for labels, version in _each_version(engines):
        for state in _STATES:
            value = int(version["state"] == state)
            yield f'modelyard_version_state{{{labels},state="{state}"}} {value}'


def _each_version(engines: Statuses) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for engine, status in engines.items():
        for version in status["versions"]:
            model, number = version["key"]
            labels = f'model="{label_text(model)}",version="{number}"'
            yield f"{_label(engine)},{labels}", version


def _head(name: str, about: str, kind: str) -> Iterator[str]:
    yield f"# HELP modelyard_{name} {about}"
    yield f"# TYPE modelyard_{name} {kind}"


def _label(engine: str) -> str:
    return f'engine="{label_text(engine)}"'
