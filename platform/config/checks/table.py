"""List the kinds of checks; each is a module in `kinds/` with the same shape."""

from typing import Protocol

from config.checks.finding import Finding, Problem
from config.checks.kinds import (
    background,
    broker,
    cache,
    certificates,
    database,
    descriptors,
    engines,
    gateways,
    home,
    mail,
    mlflow,
    security,
    snapshot,
    usage,
)


class Kind(Protocol):
    """A module that looks at one part of the installation.

    `look` may raise django.db.Error; other outages are findings.
    """

    @property
    def TITLE(self) -> str: ...

    @property
    def PROBLEMS(self) -> tuple[Problem, ...]: ...

    def look(self) -> list[Finding]: ...


KINDS: tuple[Kind, ...] = (
    gateways,
    database,
    home,
    snapshot,
    engines,
    usage,
    background,
    broker,
    cache,
    mlflow,
    mail,
    certificates,
    security,
    descriptors,
)
