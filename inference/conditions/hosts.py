"""What is to be said of a host: whether it answers, and what holds its processes."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from inference.installation import walls

# Two rounds of the controller; who was not seen for longer counts as away.
SILENT_AFTER = timedelta(seconds=30)


@dataclass(frozen=True, slots=True)
class Wall:
    """One thing that holds a process, and what it holds."""

    name: str
    sentence: str
    # It does not hold, or only in part.
    gap: bool


def walls_of(reported: Mapping[str, str]) -> list[Wall]:
    gaps = walls.gaps(dict(reported))
    return [
        Wall(name=name, sentence=sentence, gap=name in gaps)
        for name, sentence in reported.items()
    ]


def is_away(seen_at: datetime | None, *, now: datetime) -> bool:
    return seen_at is None or now - seen_at > SILENT_AFTER
