"""Run all checks at once, within a time limit, and put the findings in order."""

import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import django.db
import structlog
from django.conf import settings
from django.db import connections

from config.checks import impatient
from config.checks.finding import Finding, Level, fault, first_line, unknown, warning
from config.checks.table import KINDS, Kind

# With the start of Python, the command ends within ten seconds.
TIMEOUT_S = 8.0

NO_ANSWER = warning(
    "check-unfinished",
    "This check did not end within {seconds:.0f} seconds.",
    cost="Nobody knows how this part is.",
    mend="sudo modelyard check  # again, once the faults above are gone",
)
BROKEN = fault(
    "check-failed",
    "This check failed: {reason}.",
    cost="Nobody knows how this part is. It may be a mistake in Modelyard.",
    mend="sudo modelyard check 2>&1 | grep check_failed  # and report that line",
)
PROBLEMS = (NO_ANSWER, BROKEN)

log = structlog.get_logger(__name__)
_ORDER = list(Level)


@dataclass(frozen=True, slots=True)
class Section:
    """What was found of one kind, the worst first."""

    title: str
    findings: tuple[Finding, ...]

    @property
    def level(self) -> Level:
        return min((it.level for it in self.findings), key=_ORDER.index)


@dataclass(frozen=True, slots=True)
class Report:
    """The whole page, the worst sections first."""

    at: datetime
    home: str
    sections: tuple[Section, ...]

    def of_level(self, level: Level) -> list[Finding]:
        found = [it for section in self.sections for it in section.findings]
        return [it for it in found if it.level is level]

    @property
    def exit_code(self) -> int:
        """0: all is well; 1: there are warnings; 2: there are faults."""
        if self.of_level(Level.FAULT):
            return 2
        return 1 if self.of_level(Level.WARNING) else 0

    @property
    def summary(self) -> str:
        faults, warnings = (
            len(self.of_level(level)) for level in (Level.FAULT, Level.WARNING)
        )
        if not faults and not warnings:
            return "All is well."
        return f"{_count(faults, 'fault')}, {_count(warnings, 'warning')}."

    def as_json(self) -> dict[str, Any]:
        return {
            "at": self.at.isoformat(timespec="seconds"),
            "home": self.home,
            "exit_code": self.exit_code,
            "findings": [
                {"check": section.title, **asdict(finding)}
                for section in self.sections
                for finding in section.findings
            ],
        }


def run(kinds: Sequence[Kind] = KINDS, *, timeout_s: float = TIMEOUT_S) -> Report:
    """Look at everything at the same time; what hangs is left behind.

    Each check has a thread, and so its own connection to the database. The threads do
    not keep the process from ending.
    """
    looks = [_Look(kind) for kind in kinds]
    deadline = time.monotonic() + timeout_s
    for look in looks:
        look.start()
    for look in looks:
        look.join(max(0.0, deadline - time.monotonic()))
    sections = [Section(look.title, _sorted(look.result(timeout_s))) for look in looks]
    return Report(
        at=datetime.now(UTC),
        home=str(settings.HOME.root),
        sections=tuple(sorted(sections, key=lambda it: _ORDER.index(it.level))),
    )


class _Look(threading.Thread):
    """One check in its thread."""

    def __init__(self, kind: Kind) -> None:
        super().__init__(name=f"check {kind.TITLE}", daemon=True)
        self.title = kind.TITLE
        self._kind = kind
        self._findings: list[Finding] | None = None

    def run(self) -> None:
        try:
            impatient.hurry()
            self._findings = self._kind.look()
        except django.db.Error:
            self._findings = [unknown("Not looked at: the database does not answer.")]
        except PermissionError as error:
            sentence = f"Not looked at: this user may not read {error.filename}."
            self._findings = [unknown(sentence)]
        except Exception as error:
            # The boundary of one check: the others say what they know.
            log.exception("check_failed", check=self.title)
            reason = f"{type(error).__name__}: {first_line(error)}"
            self._findings = [BROKEN.found(reason=reason)]
        finally:
            connections.close_all()

    def result(self, timeout_s: float) -> list[Finding]:
        found = self._findings
        return [NO_ANSWER.found(seconds=timeout_s)] if found is None else found


def _sorted(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    return tuple(sorted(findings, key=lambda it: _ORDER.index(it.level)))


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
