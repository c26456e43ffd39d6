"""Pass the counts of processes without a port to the gateways, in a file each.

Every process writes its file anew some seconds apart; a gateway reads them all when
somebody scrapes it. Counters begin again with their process, as Prometheus expects.
"""

import fcntl
import itertools
import os
import platform
import time
from importlib import metadata
from pathlib import Path

import msgspec

from inference.installation import whole_files
from inference.installation.ledger_report import Gauge
from inference.metrics.counts import HERE, Counts, Distribution, Number
from inference.metrics.own_use import OwnUse, own_use

INTERVAL_S = 5.0
# A process whose report is older than this counts as away.
MOST_AGE_S = 4 * INTERVAL_S
# A database that does not answer takes its time to say so.
MOST_FACTS_AGE_S = 60.0
PYTHON = platform.python_version()
try:
    # Read at the start: an upgrade may change it on the disk while this process runs.
    VERSION = metadata.version("modelyard")
except metadata.PackageNotFoundError:
    VERSION = "source"


class OwnReport(msgspec.Struct, frozen=True):
    """What one process counted, and what it uses."""

    process: str
    # Seconds since the epoch.
    at: float
    version: str
    python: str
    use: OwnUse
    numbers: list[Number] = []
    distributions: list[Distribution] = []

    def is_fresh(self, now: float) -> bool:
        return now - self.at <= MOST_AGE_S


class Facts(msgspec.Struct, frozen=True):
    """What the database and the broker say about the whole installation."""

    # Seconds since the epoch.
    at: float
    gauges: list[Gauge]

    def shown(self, now: float) -> list[Gauge]:
        """Return their age, and what they say while they are fresh."""
        age = Gauge("facts_age_seconds", max(0.0, now - self.at))
        return [age] if age.value > MOST_FACTS_AGE_S else [age, *self.gauges]


_decoder = msgspec.json.Decoder(OwnReport)
_facts_decoder = msgspec.json.Decoder(Facts)


class ReportFile:
    """The file of this process's reports.

    The first process of a name takes the name itself, another that runs beside it
    `NAME-2`, and so on. A lock on a second file says who has which, until it ends. Then
    the next one moves up: a successor begins beside the process that it replaces.
    """

    def __init__(self, folder: Path, name: str) -> None:
        folder.mkdir(exist_ok=True)
        self._folder = folder
        self._name = name
        self.process = ""
        self._lock = -1
        self._take_name()

    @property
    def _path(self) -> Path:
        return self._folder / f"{self.process}.json"

    def _take_name(self) -> None:
        """Take the first name that no other process has."""
        for number in itertools.count(1):
            process = self._name if number == 1 else f"{self._name}-{number}"
            if process == self.process:
                return
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
            lock = os.open(self._folder / f"{process}.lock", flags, 0o660)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(lock)
                continue
            if self.process:
                self._path.unlink(missing_ok=True)
                os.close(self._lock)
            self.process, self._lock = process, lock
            return

    def write(self, counts: Counts = HERE) -> None:
        """Give a sign of life and replace the report; raises OSError.

        The sign, the time of the lock's file, needs no room on the disk.
        """
        self._take_name()
        os.utime(self._lock)
        report = OwnReport(
            self.process,
            time.time(),
            VERSION,
            PYTHON,
            own_use(),
            counts.numbers(),
            counts.distributions(),
        )
        whole_files.write(self._path, msgspec.json.encode(report), durable=False)


def read(folder: Path) -> list[OwnReport]:
    """Return all reports that can be read."""
    found = (whole_files.read(path, _decoder) for path in folder.glob("*.json"))
    return sorted(filter(None, found), key=lambda report: report.process)


def write_facts(path: Path, facts: Facts) -> None:
    whole_files.write(path, msgspec.json.encode(facts), durable=False)


def read_facts(path: Path) -> Facts | None:
    """Return the facts; None if they are missing or unreadable."""
    return whole_files.read(path, _facts_decoder)
