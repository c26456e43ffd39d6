"""Define what a check finds: how something is, what that costs, what mends it."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

_ERRNO = re.compile(r"^\[Errno -?\d+\] ")


class Level(StrEnum):
    """How bad something is, from the worst."""

    FAULT = "fault"
    WARNING = "warning"
    # It was not looked at; the sentence says why.
    UNKNOWN = "not known"
    WELL = "well"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the page."""

    level: Level
    sentence: str
    # The problem's entry in docs/troubleshooting.md; empty if nothing is wrong.
    code: str = ""
    cost: str = ""
    mend: str = ""


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that may be wrong; the texts name facts in braces."""

    code: str
    level: Level
    sentence: str
    # What happens if nobody acts.
    cost: str
    # A command, or what to change.
    mend: str

    def found(self, **facts: object) -> Finding:
        """Return the finding for one case of this problem."""
        return Finding(
            self.level,
            self.sentence.format(**facts),
            self.code,
            self.cost.format(**facts),
            self.mend.format(**facts),
        )


def fault(code: str, sentence: str, *, cost: str, mend: str) -> Problem:
    """Define a problem that keeps people from working."""
    return Problem(code, Level.FAULT, sentence, cost, mend)


def warning(code: str, sentence: str, *, cost: str, mend: str) -> Problem:
    """Define a problem that will become a fault, or weakens the installation."""
    return Problem(code, Level.WARNING, sentence, cost, mend)


def well(sentence: str) -> Finding:
    return Finding(Level.WELL, sentence)


def unknown(sentence: str) -> Finding:
    return Finding(Level.UNKNOWN, sentence)


def or_well(found: Sequence[Finding], sentence: str) -> list[Finding]:
    """Return the findings, or that all is well if there are none."""
    return list(found) or [well(sentence)]


def in_words(seconds: float) -> str:
    """Write a time in its largest unit: "3 minutes", "2 days"."""
    for unit, size in (("day", 86_400), ("hour", 3600), ("minute", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}s"
    return f"{seconds:.0f} seconds"


def first_line(error: BaseException | str) -> str:
    """Return the first line of an error's text as a part of a sentence."""
    text = str(error).strip() or type(error).__name__
    return _ERRNO.sub("", text.splitlines()[0]).strip().rstrip(".")
