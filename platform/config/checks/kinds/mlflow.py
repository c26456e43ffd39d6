"""Look at MLflow: whether its server or database answers, and the last sync."""

import re
import socket
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

import django.db
import httpx
from django.conf import settings

from config.checks import impatient
from config.checks.finding import Finding, first_line, or_well, warning
from registry.models import RegistrySync

TITLE = "MLflow"
_PORTS = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}

UNREACHABLE = warning(
    "mlflow-unreachable",
    "MLflow does not answer at {place}: {reason}.",
    cost="New versions and moved aliases do not arrive. What is served goes on.",
    mend="sudo modelyard sync_registry  # or correct MLFLOW_TRACKING_URI",
)
MISSING = warning(
    "mlflow-missing",
    "There is no MLflow store at {place}.",
    cost="New versions and moved aliases do not arrive. What is served goes on.",
    mend="MLFLOW_TRACKING_URI=https://mlflow.example.com  # or register a first model",
)
SYNC_FAILS = warning(
    "sync-fails",
    "The last sync with MLflow failed: {reason}.",
    cost="New versions and moved aliases do not arrive. What is served goes on.",
    mend="sudo modelyard sync_registry",
)
PROBLEMS = (UNREACHABLE, MISSING, SYNC_FAILS)


@dataclass(frozen=True, slots=True)
class MlflowFacts:
    # Without the password.
    place: str
    unreachable: str = ""
    missing: bool = False
    sync_error: str = ""


def look() -> list[Finding]:
    uri = settings.MLFLOW_TRACKING_URI
    place = without_password(uri)
    if _is_missing(urlsplit(uri)):
        return judge(MlflowFacts(place, missing=True))
    if unreachable := _why_unreachable(urlsplit(uri)):
        # A database that hangs, too, must not take the time of this.
        return judge(MlflowFacts(place, unreachable))
    return judge(MlflowFacts(place, sync_error=_sync_error()))


def _sync_error() -> str:
    try:
        sync = RegistrySync.objects.filter(pk=1).first()
    except django.db.Error:
        return ""
    return "" if sync is None else sync.error


def judge(facts: MlflowFacts) -> list[Finding]:
    found = []
    if facts.missing:
        found.append(MISSING.found(place=facts.place))
    elif facts.unreachable:
        found.append(UNREACHABLE.found(place=facts.place, reason=facts.unreachable))
    elif facts.sync_error:
        found.append(SYNC_FAILS.found(reason=first_line(facts.sync_error)))
    return or_well(found, f"{facts.place} answers.")


def without_password(uri: str) -> str:
    return re.sub(r"//[^/@]*@", "//", uri)


def _is_missing(uri: SplitResult) -> bool:
    """Return whether MLflow is a file or folder of this machine that is not there."""
    kind = uri.scheme.partition("+")[0]
    if kind == "sqlite":
        return not Path(uri.path.removeprefix("/")).exists()
    return kind in ("", "file") and not Path(uri.path).exists()


def _why_unreachable(uri: SplitResult) -> str:
    kind = uri.scheme.partition("+")[0]
    if kind in ("http", "https"):
        return _why_no_answer(uri)
    if kind in _PORTS and uri.hostname:
        return _why_no_connection(uri.hostname, uri.port or _PORTS[kind])
    return ""


def _why_no_answer(uri: SplitResult) -> str:
    """Ask the server for its health; whether it knows us, the sync finds out."""
    url = uri._replace(path=uri.path.rstrip("/") + "/health").geturl()
    try:
        answer = httpx.get(url, timeout=impatient.TIMEOUT_S, follow_redirects=True)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        return first_line(error)
    return f"it answers {answer.status_code}" if answer.status_code >= 500 else ""


def _why_no_connection(host: str, port: int) -> str:
    try:
        socket.create_connection((host, port), impatient.TIMEOUT_S).close()
    except OSError as error:
        return first_line(error)
    return ""
