"""What the ledger says, from the controller to whoever asks a gateway for metrics.

Gateways ask no database, so the controller of their machine leaves a small file.
"""

import os
from pathlib import Path

import msgspec


class JobCounts(msgspec.Struct, frozen=True):
    """What jobs have predicted by one version, ever; no gateway has a part in it."""

    model: str
    version: str
    variant: str
    requests: int
    rows: int
    compute_us: int


class Gauge(msgspec.Struct, frozen=True):
    name: str
    value: float
    labels: dict[str, str] = {}


class LedgerReport(msgspec.Struct, frozen=True):
    # Seconds since the epoch.
    at: float
    # For how long the oldest hour of usage has waited to be rolled up.
    roll_up_lag_s: float
    # What workers have predicted, who have no metrics of their own.
    jobs: list[JobCounts] = []


_decoder = msgspec.json.Decoder(LedgerReport)


def write(path: Path, report: LedgerReport) -> None:
    """Replace the report so that readers see the old or the new, whole."""
    partial = path.with_suffix(f".{os.getpid()}.partial")
    partial.write_bytes(msgspec.json.encode(report))
    partial.replace(path)


def read(path: Path) -> LedgerReport | None:
    """Return the report; None where there is none."""
    try:
        return _decoder.decode(path.read_bytes())
    except (OSError, msgspec.DecodeError):
        return None


def gauges(report: LedgerReport, *, now: float) -> list[Gauge]:
    """Return the report's gauges, and its age."""
    return [
        Gauge("usage_roll_up_lag_seconds", report.roll_up_lag_s),
        Gauge("ledger_report_age_seconds", max(0.0, now - report.at)),
    ]
