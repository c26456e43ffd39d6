"""What one gateway says of itself, and the sum over the gateways of a machine. Pure."""

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from inference import engine_metrics
from inference.metrics import Metrics, MetricsState, label_text

# Of several gateways the worst counts: here the least, elsewhere the greatest.
_LEAST = ("ready", "snapshot_sequence", "engine_up")
_SUM = ("overdrawn_units", "keys_backing_off")


class GatewayReport(msgspec.Struct):
    """One gateway's counts and state."""

    name: str
    boot_id: str
    metrics: MetricsState
    gauges: dict[str, float]
    # Models whose default cannot answer yet.
    waiting_for: list[str]
    snapshot_sequence: int
    # Status of each engine by its name, as this gateway heard it last.
    engines: dict[str, Any] = {}


def metrics_text(
    reports: Iterable[GatewayReport], *, expected: Iterable[str] = ()
) -> str:
    """Write the sum of all reports as Prometheus text; name who did not report."""
    sums = Metrics()
    gauges: dict[str, float] = {}
    up = dict.fromkeys(expected, 0.0)
    engines: dict[str, Any] = {}
    for report in reports:
        engines |= report.engines
        sums.add(report.metrics)
        up[report.name] = 1.0
        for name, value in report.gauges.items():
            if name.startswith(_SUM):
                gauges[name] = gauges.get(name, 0.0) + value
                continue
            worse = min if name.startswith(_LEAST) else max
            gauges[name] = worse(value, gauges.get(name, value))
    for name, value in up.items():
        gauges[f'gateway_up{{gateway="{label_text(name)}"}}'] = value
    return sums.render(gauges) + engine_metrics.render(engines)


def readiness(
    reports: Iterable[GatewayReport], *, expected: Iterable[str] = ()
) -> dict[str, Any]:
    """Tell whether every gateway that is there can answer, and what each waits for."""
    found = list(reports)
    waiting = sorted({name for report in found for name in report.waiting_for})
    gateways: dict[str, Mapping[str, Any]] = {
        name: {"up": False, "ready": False} for name in expected
    }
    engines: dict[str, Any] = {}
    for report in reversed(found):
        gateways[report.name] = {
            "up": True,
            "ready": not report.waiting_for,
            "snapshot_sequence": report.snapshot_sequence,
        }
        engines |= report.engines
    return {
        "ready": not waiting,
        "waiting_for": waiting,
        "snapshot_sequence": min((r.snapshot_sequence for r in found), default=0),
        "gateways": gateways,
        "engines": engines,
    }
