"""How far the ledger is, from the controller to whoever asks a gateway for metrics.

Gateways ask no database, so the controller of their machine leaves a small file.
"""

import os
from pathlib import Path

import msgspec

from inference.metrics import Gauge


class LedgerReport(msgspec.Struct, frozen=True):
    # Seconds since the epoch.
    at: float
    # For how long the oldest hour of usage has waited to be rolled up.
    roll_up_lag_s: float


_decoder = msgspec.json.Decoder(LedgerReport)


def write(path: Path, report: LedgerReport) -> None:
    """Replace the report so that readers see the old or the new, whole."""
    partial = path.with_suffix(f".{os.getpid()}.partial")
    partial.write_bytes(msgspec.json.encode(report))
    partial.replace(path)


def gauges(path: Path, *, now: float) -> list[Gauge]:
    """Give the report as gauges, with its age; nothing where there is none."""
    try:
        report = _decoder.decode(path.read_bytes())
    except (OSError, msgspec.DecodeError):
        return []
    return [
        Gauge("usage_roll_up_lag_seconds", report.roll_up_lag_s),
        Gauge("ledger_report_age_seconds", max(0.0, now - report.at)),
    ]
