"""Draw usage per day as the rectangles of an SVG, on plain data."""

import datetime
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

WIDTH = 900
HEIGHT = 160
# Part of each day's width; the rest keeps bars apart.
_BAR_SHARE = 0.7
# So that a day with a single call is still visible.
_LEAST_HEIGHT = 2.0


@dataclass(frozen=True, slots=True)
class Bar:
    """One day; heights in units of the chart, refused calls on top of answered ones."""

    day: datetime.date
    answered: int
    refused: int
    x: float
    width: float
    answered_y: float
    answered_height: float
    refused_y: float
    refused_height: float


@dataclass(frozen=True, slots=True)
class Chart:
    bars: tuple[Bar, ...]
    most: int
    width: int = WIDTH
    height: int = HEIGHT

    @property
    def busy_days(self) -> list[Bar]:
        """Return the days that had calls, newest first, for the table."""
        return [bar for bar in reversed(self.bars) if bar.answered or bar.refused]


def daily(rows: Iterable[dict[str, Any]], days: list[datetime.datetime]) -> Chart:
    """Draw rows of `reading.over_time` by day; `days` include those without calls."""
    counts = {row["start"]: (row["requests"], row["errors"]) for row in rows}
    requests = [counts.get(day, (0, 0)) for day in days]
    most = max((total for total, _ in requests), default=0)
    step = WIDTH / len(days)
    return Chart(
        bars=tuple(
            _bar(day.date(), total, errors, x=index * step, step=step, most=most)
            for index, (day, (total, errors)) in enumerate(
                zip(days, requests, strict=True)
            )
        ),
        most=most,
    )


def _bar(
    day: datetime.date, total: int, errors: int, *, x: float, step: float, most: int
) -> Bar:
    answered_height = _height(total - errors, most)
    refused_height = _height(errors, most)
    # Both least heights together must not exceed the chart.
    answered_height = min(answered_height, HEIGHT - refused_height)
    answered_y = HEIGHT - answered_height
    return Bar(
        day=day,
        answered=total - errors,
        refused=errors,
        x=round(x + step * (1 - _BAR_SHARE) / 2, 1),
        width=round(step * _BAR_SHARE, 1),
        answered_y=round(answered_y, 1),
        answered_height=round(answered_height, 1),
        refused_y=round(answered_y - refused_height, 1),
        refused_height=round(refused_height, 1),
    )


def _height(count: int, most: int) -> float:
    if not count:
        return 0.0
    return max(_LEAST_HEIGHT, HEIGHT * count / most)
