"""Define the report of one gateway, and combine those of all gateways of a machine."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec
from prometheus_client.core import Metric

from inference.gateway.metrics import calls, families
from inference.gateway.metrics import engines as engine_metrics
from inference.gateway.metrics.calls import MetricsState
from inference.gateway.metrics.gauges import of_gauges
from inference.installation.ledger_report import Gauge, JobCounts
from inference.metrics.own_use import OwnUse

# Of several gateways the worst value counts. That is the least for these gauges, and
# the greatest for those in neither list; _SUM is added up.
_LEAST = (
    "ready",
    "snapshot_sequence",
    "engine_up",
    "grpc_certificate_ends_at_seconds",
    "disk_free_bytes",
    "disk_free_inodes",
)
_SUM = (
    "overdrawn_units",
    "keys_backing_off",
)


class GatewayReport(msgspec.Struct):
    """One gateway's counts and state."""

    name: str
    boot_id: str
    metrics: MetricsState
    gauges: list[Gauge]
    # All calls that could be answered before can be answered now.
    ready: bool
    # Why not; also models that have no served version yet.
    waiting_for: list[str]
    snapshot_sequence: int
    # What jobs predicted, from the ledger report: the same in all gateways.
    jobs: list[JobCounts] = []
    # The last status of each engine that this gateway got, by name.
    engines: dict[str, Any] = {}
    use: OwnUse = OwnUse()
    # Requests that were relayed to the site, and those whose X-Forwarded-For was not
    # believed, the last of them from this address.
    relayed: int = 0
    distrusted: int = 0
    distrusted_peer: str = ""


def metrics_of(
    reports: Sequence[GatewayReport], *, expected: Iterable[str] = ()
) -> Iterator[Metric]:
    """Yield the metrics of all reports; the first one's engines and jobs prevail."""
    gauges: dict[tuple[str, str], Gauge] = {}
    up = dict.fromkeys(expected, 0.0)
    engines: dict[str, Any] = {}
    for report in reports:
        engines = report.engines | engines
        up[report.name] = 1.0
        for gauge in report.gauges:
            key = (gauge.name, str(gauge.labels))
            gauges[key] = _together(gauges.get(key, gauge), gauge)
    yield from calls.of_gateways(
        {it.name: it.metrics for it in reports},
        jobs=next((it.jobs for it in reports), ()),
    )
    yield families.numbers("gateway_up", [([it], value) for it, value in up.items()])
    yield from of_gauges(gauges.values())
    yield from engine_metrics.of_engines(engines)


def _together(one: Gauge, other: Gauge) -> Gauge:
    if one is other:
        return one
    if one.name in _SUM:
        return Gauge(one.name, one.value + other.value, one.labels)
    worse = min if one.name in _LEAST else max
    return Gauge(one.name, worse(one.value, other.value), one.labels)


def readiness(
    reports: Iterable[GatewayReport], *, expected: Iterable[str] = ()
) -> dict[str, Any]:
    """Return whether all gateways that report are ready, and what each waits for."""
    found = list(reports)
    waiting = sorted({name for report in found for name in report.waiting_for})
    gateways: dict[str, Mapping[str, Any]] = {
        name: {"up": False, "ready": False} for name in expected
    }
    engines: dict[str, Any] = {}
    for report in reversed(found):
        gateways[report.name] = {
            "up": True,
            "ready": report.ready,
            "snapshot_sequence": report.snapshot_sequence,
        }
        engines |= report.engines
    return {
        "ready": all(report.ready for report in found),
        "waiting_for": waiting,
        "snapshot_sequence": min((r.snapshot_sequence for r in found), default=0),
        "gateways": gateways,
        "engines": engines,
    }
