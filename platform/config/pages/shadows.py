"""What shadows answered to copies of calls, for the pages of routes and versions."""

from dataclasses import dataclass
from datetime import datetime

from inference.models import ShadowExample, ShadowTotals
from registry.models import ModelVersion, Route

_LISTED = 10
_EXAMPLES = 20


@dataclass(frozen=True, slots=True)
class ShadowRow:
    """One version beside a default, in numbers for people."""

    shadow: int
    default: int
    calls: int
    changed: str
    failed: int
    distance: str
    times: str
    first_at: datetime
    last_at: datetime


def of(subject: Route | ModelVersion) -> list[ShadowRow]:
    """List what the shadows of a route's model answered, or one version as shadow."""
    found = ShadowTotals.objects.filter(model=subject.registered_model.name)
    if isinstance(subject, ModelVersion):
        found = found.filter(shadow_version=subject.version)
    return [_row(totals) for totals in found.filter(rows__gt=0)[:_LISTED]]


def examples_of(subject: Route | ModelVersion) -> list[ShadowExample]:
    """List the newest calls that the same shadows answered otherwise."""
    found = ShadowExample.objects.filter(model=subject.registered_model.name)
    if isinstance(subject, ModelVersion):
        found = found.filter(shadow_version=subject.version)
    return list(found[:_EXAMPLES])


def _row(totals: ShadowTotals) -> ShadowRow:
    share = 100 * totals.changed_rows / totals.rows
    ours, theirs = totals.default_us / totals.calls, totals.shadow_us / totals.calls
    return ShadowRow(
        shadow=totals.shadow_version,
        default=totals.default_version,
        calls=totals.calls,
        changed=f"{totals.changed_rows:,} of {totals.rows:,} ({share:.1f} %)",
        failed=totals.failed,
        distance=f"{totals.distance / totals.rows:.3g}",
        times=f"{theirs / 1000:,.1f} ms, {ours / 1000:,.1f} ms",
        first_at=totals.first_at,
        last_at=totals.last_at,
    )
