"""Look at the database: reachable, migrated, writable, its clock, and whose it is."""

import secrets
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import django.db
from django.conf import settings
from django.contrib.sessions.models import Session
from django.db import connection, transaction
from django.db.migrations.loader import MigrationLoader

from accounts.admission.limit_words import counted
from config.checks.finding import Finding, fault, first_line, in_words, or_well, warning
from config.processes import schema
from inference.models import DatabaseHome

TITLE = "Database"
_CLOCK_TOLERANCE_S = 2.0
# A session that ended then is worth nothing to anybody.
_PAST = datetime(2000, 1, 1, tzinfo=UTC)

UNREACHABLE = fault(
    "database-unreachable",
    "The database does not answer: {reason}.",
    cost="Pages answer 503, and usage waits on disk. Predictions go on with borrowed "
    "quotas.",
    mend="sudo systemctl restart postgresql  # or correct DATABASE_URL",
)
UNUSABLE = fault(
    "database-file-unusable",
    "The database in {path} cannot be used: {reason}.",
    cost="Pages answer 503, and usage waits on disk. Predictions go on with borrowed "
    "quotas.",
    mend="sudo df -h {path}; sudo ls -l {path}",
)
MISSING = fault(
    "database-missing",
    "There is no database at {path}.",
    cost="Pages answer 503, and usage waits on disk.",
    mend="sudo modelyard migrate  # makes an empty one; or mount the disk "
    "that holds it",
)
NOT_MIGRATED = fault(
    "migrations-missing",
    "The database lacks {lacking}, first {first}.",
    cost="`serve` does not start; pages and the controller may fail.",
    mend="sudo modelyard migrate",
)
NEWER = fault(
    "database-newer",
    "The database is newer than this code: it has {first}, which the code lacks.",
    cost="Pages and the controller may fail, or write what the newer code misreads.",
    mend="Install the newer code again, or follow docs/upgrade.md to go back.",
)
NOT_WRITABLE = fault(
    "database-not-writable",
    "The database cannot be written: {reason}.",
    cost="Nothing can be changed, usage waits on disk, and jobs do not go on.",
    mend="df -h  # where the database runs: {place}; or a lock, a standby, no rights",
)
OTHER_HOME = fault(
    "database-of-another-home",
    "The database belongs to another home: {owner}.",
    cost="`serve` does not start here, and gateways of this home have no keys.",
    mend="sudo modelyard take_over  # only if the other home is gone for good",
)
MOVED = warning(
    "home-moved",
    "This home was known as {owner}; it was moved or copied.",
    cost="If it is a copy, `serve` does not start while the original runs.",
    mend="sudo systemctl restart modelyard  # after the original is stopped",
)
CLOCK = warning(
    "clocks-apart",
    "This machine's clock is {apart} {way} the database's.",
    cost="Keys expire, and periods of quotas begin, at wrong times.",
    mend="sudo timedatectl set-ntp true",
)
PROBLEMS = (
    UNREACHABLE,
    UNUSABLE,
    MISSING,
    NOT_MIGRATED,
    NEWER,
    NOT_WRITABLE,
    OTHER_HOME,
    MOVED,
    CLOCK,
)


@dataclass(frozen=True, slots=True)
class DatabaseFacts:
    vendor: str = ""
    # The file or host.
    place: str = ""
    answer_ms: float = 0.0
    # Why it does not answer, or cannot be written.
    unreachable: str = ""
    file_is_missing: bool = False
    not_writable: str = ""
    lacking: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    clock_apart_s: float = 0.0
    # The home that owns it, if that is not this one; and whether this home's id does.
    owner: str = ""
    owned_by_id: bool = False


def look() -> list[Finding]:
    return judge(facts())


def judge(facts: DatabaseFacts) -> list[Finding]:
    if facts.file_is_missing:
        return [MISSING.found(path=facts.place)]
    if facts.unreachable and facts.vendor == "SQLite":
        return [UNUSABLE.found(path=facts.place, reason=facts.unreachable)]
    if facts.unreachable:
        return [UNREACHABLE.found(reason=facts.unreachable)]
    found = []
    if facts.lacking:
        found.append(
            NOT_MIGRATED.found(
                lacking=counted(len(facts.lacking), "migrations"),
                first=facts.lacking[0],
            )
        )
    if facts.unknown:
        found.append(NEWER.found(first=facts.unknown[0]))
    if facts.not_writable:
        found.append(NOT_WRITABLE.found(reason=facts.not_writable, place=facts.place))
    if facts.owner:
        problem = MOVED if facts.owned_by_id else OTHER_HOME
        found.append(problem.found(owner=facts.owner))
    if abs(facts.clock_apart_s) > _CLOCK_TOLERANCE_S:
        way = "behind" if facts.clock_apart_s > 0 else "ahead of"
        found.append(CLOCK.found(apart=in_words(abs(facts.clock_apart_s)), way=way))
    return or_well(
        found,
        f"{facts.vendor} answers in {facts.answer_ms:.0f} ms, has all migrations and "
        "can be written.",
    )


def facts() -> DatabaseFacts:
    """Ask the database; its outages are facts."""
    vendor = connection.display_name
    place = _place()
    if connection.vendor == "sqlite" and not Path(place).exists():
        return DatabaseFacts(vendor, place, file_is_missing=True)
    try:
        connection.ensure_connection()
        started = time.monotonic()
        apart_s = _clock_apart_s()
        answer_ms = (time.monotonic() - started) * 1000
        loader = MigrationLoader(connection)
        lacking, unknown = _migrations(loader)
        not_writable = _why_not_writable(loader)
        owner, owned_by_id = ("", False) if lacking else _owner()
    except django.db.Error as error:
        return DatabaseFacts(vendor, place, unreachable=first_line(error))
    return DatabaseFacts(
        vendor,
        place,
        answer_ms,
        not_writable=not_writable,
        lacking=lacking,
        unknown=unknown,
        clock_apart_s=apart_s,
        owner=owner,
        owned_by_id=owned_by_id,
    )


def _place() -> str:
    """Return the file of SQLite; of a server, the folder of the home, as a stand-in."""
    if connection.vendor != "sqlite":
        return str(settings.HOME.root)
    name = str(connection.settings_dict["NAME"])
    return name.removeprefix("file:").partition("?")[0]


def _clock_apart_s() -> float:
    """Return how far the server's clock is ahead of this machine's."""
    with connection.cursor() as cursor:
        asked = time.time()
        if connection.vendor == "sqlite":
            cursor.execute("SELECT 1")
            return 0.0
        cursor.execute("SELECT clock_timestamp()")
        [there] = cursor.fetchone()
    assert isinstance(there, datetime)
    return there.timestamp() - (asked + time.time()) / 2


def _migrations(loader: MigrationLoader) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the migrations that the database lacks, and those that the code lacks."""
    applied = set(loader.applied_migrations)
    lacking = [key for key in loader.graph.nodes if key not in applied]
    names = (f"{app}.{name}" for app, name in sorted(lacking))
    return tuple(names), tuple(schema.unknown(applied))


def _why_not_writable(loader: MigrationLoader) -> str:
    """Write and delete a row, which needs room on the database's disk; "" if it can."""
    if ("sessions", "0001_initial") not in loader.applied_migrations:
        return ""
    tried = Session(session_key=f"check-{secrets.token_hex(8)}", expire_date=_PAST)
    try:
        with transaction.atomic():
            tried.save(force_insert=True)
            tried.delete()
    except django.db.Error as error:
        return first_line(error)
    return ""


def _owner() -> tuple[str, bool]:
    """Return the owner of the database, if not this home, and whether its id fits."""
    owner = DatabaseHome.objects.filter(pk=1).first()
    if owner is None:
        return "", False
    try:
        here = (settings.HOME.root / "home_id").read_text()
    except FileNotFoundError:
        here = ""
    except OSError:
        # Another user asks, who cannot know.
        return "", False
    if owner.home_id != here:
        return str(owner), False
    return ("", True) if owner.path == str(settings.HOME.root) else (str(owner), True)
