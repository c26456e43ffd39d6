"""Show what callers said of versions: by day, and beside each other."""

import datetime
from collections.abc import Sequence
from dataclasses import dataclass

from inference.models import FeedbackSum

DAYS = 30
_TITLES = {
    "score": "Mean score",
    "right": "Accuracy",
    "error": "Mean error",
    "value": "Mean value",
}
_NONE = "–"


@dataclass(frozen=True, slots=True)
class LineSaid:
    """One day, or all days, with a number for each version."""

    title: str
    numbers: list[str]


@dataclass(frozen=True, slots=True)
class MeasureSaid:
    """One measure of the versions: of all days, then of each, the newest first."""

    title: str
    whole: LineSaid
    days: list[LineSaid]


@dataclass(frozen=True, slots=True)
class Said:
    """What callers said of some versions in the last days."""

    model: str
    # The versions with their roles, in words.
    columns: list[str]
    measures: list[MeasureSaid]


def of_versions(
    model: str, columns: Sequence[tuple[str, int]], *, today: datetime.date
) -> Said:
    """Put versions side by side; `columns` are their titles and numbers."""
    versions = [str(version) for _, version in columns]
    rows = FeedbackSum.objects.filter(
        model=model,
        version__in=versions,
        day__gt=today - datetime.timedelta(days=DAYS),
        count__gt=0,
    )
    found: dict[str, dict[datetime.date, dict[str, tuple[int, float]]]] = {}
    for row in rows:
        of_day = found.setdefault(row.measure, {}).setdefault(row.day, {})
        of_day[row.version] = (row.count, row.total)
    measures = []
    for name, title in _TITLES.items():
        days = found.get(name)
        if not days:
            continue
        whole = {
            version: (
                sum(day[version][0] for day in days.values() if version in day),
                sum(day[version][1] for day in days.values() if version in day),
            )
            for version in versions
        }
        measures.append(
            MeasureSaid(
                title,
                _line(f"Last {DAYS} days", name, whole, versions),
                [
                    _line(f"{day:%Y-%m-%d}", name, days[day], versions)
                    for day in sorted(days, reverse=True)
                ],
            )
        )
    return Said(model, [title for title, _ in columns], measures)


def _line(
    title: str,
    measure: str,
    sums: dict[str, tuple[int, float]],
    versions: Sequence[str],
) -> LineSaid:
    return LineSaid(
        title, [_text(measure, *sums.get(each, (0, 0.0))) for each in versions]
    )


def _text(measure: str, count: int, total: float) -> str:
    if not count:
        return _NONE
    mean = total / count
    return f"{_number(measure, mean)} of {count:,}"


def _number(measure: str, mean: float) -> str:
    if measure == "right":
        return f"{mean:.1%}"
    # Four digits, but never as 1.235e+04.
    return f"{mean:,.4g}" if abs(mean) < 9_999.5 else f"{mean:,.0f}"
