"""Show a host's report as metrics, through the gateways of its machine."""

from collections import Counter

from inference.installation.ledger_report import MOST_AGE_S, Gauge
from inference.placement.processes import HostReport

_A_DAY_S = 24 * 3600.0


def gauges(report: HostReport, *, now: float) -> list[Gauge]:
    """Return the report's gauges: its age, and what it says while it is fresh."""
    found = [Gauge("host_report_age_seconds", max(0.0, now - report.at))]
    if found[0].value > MOST_AGE_S:
        return found
    for process in report.processes:
        labels = {"engine": process.name}
        found += [
            Gauge("process_running", float(process.state == "running"), labels),
            Gauge("process_memory_bytes", float(process.memory_bytes), labels),
        ]
        found += [
            Gauge("version_quarantined", 1.0, _of(key.model, key.version))
            for key in process.quarantined
        ]
    deaths = Counter(
        it.version
        for it in report.deaths
        if it.version is not None and now - it.at < _A_DAY_S
    )
    found += [
        Gauge("process_deaths_today", float(count), _of(key.model, key.version))
        for key, count in deaths.items()
    ]
    return found


def _of(model: str, version: int) -> dict[str, str]:
    return {"model": model, "version": str(version)}
