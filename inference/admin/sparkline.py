"""Draw a process's memory over time as a small SVG."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from django.template.defaultfilters import filesizeformat

WIDTH, HEIGHT = 120, 24
# Keeps the line's whole width inside the picture.
_MARGIN = 2


@dataclass(frozen=True, slots=True)
class Sparkline:
    """The points of an SVG polyline, and what they say in words."""

    points: str
    text: str


def draw(samples: Sequence[Sequence[float]]) -> Sparkline | None:
    """Draw pairs of seconds since the epoch and bytes; None: too few of them."""
    if len(samples) < 2:
        return None
    times = [float(at) for at, _ in samples]
    sizes = [float(size) for _, size in samples]
    # From zero, so that small changes do not look large.
    highest = max(sizes) or 1.0
    length = (times[-1] - times[0]) or 1.0
    points = " ".join(
        f"{(at - times[0]) / length * WIDTH:.1f},"
        f"{HEIGHT - _MARGIN - size / highest * (HEIGHT - 2 * _MARGIN):.1f}"
        for at, size in zip(times, sizes, strict=True)
    )
    text = (
        f"Memory from {_clock(times[0])} to {_clock(times[-1])} UTC: "
        f"{filesizeformat(sizes[0])} at first, {filesizeformat(sizes[-1])} now, "
        f"{filesizeformat(highest)} at most"
    )
    return Sparkline(points=points, text=text)


def _clock(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%H:%M")
