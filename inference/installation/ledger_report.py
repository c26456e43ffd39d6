"""Pass metrics about usage and jobs from the controller to the gateways, in a file.

Gateways do not query the database, so the controller of their machine writes this file.
"""

from pathlib import Path

import msgspec

from inference.installation import whole_files

# An older report says nothing of the present.
MOST_AGE_S = 60.0


class JobCounts(msgspec.Struct, frozen=True):
    """All predictions by jobs with one version; gateways do not count these."""

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
    # How long the oldest hour of usage has waited to be rolled up.
    roll_up_lag_s: float
    # Predictions of the workers, which have no metrics of their own.
    jobs: list[JobCounts] = []


_decoder = msgspec.json.Decoder(LedgerReport)


def write(path: Path, report: LedgerReport) -> None:
    """Replace the report; readers see the whole old or the whole new one."""
    whole_files.write(path, msgspec.json.encode(report), durable=False)


def read(path: Path) -> LedgerReport | None:
    """Return the report; None if it is missing or unreadable."""
    return whole_files.read(path, _decoder)


def gauges(report: LedgerReport, *, now: float) -> list[Gauge]:
    """Return the report's gauges: its age, and what it says while it is fresh."""
    age = Gauge("ledger_report_age_seconds", max(0.0, now - report.at))
    if age.value > MOST_AGE_S:
        return [age]
    return [Gauge("usage_roll_up_lag_seconds", report.roll_up_lag_s), age]
