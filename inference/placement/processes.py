"""Define what a host is asked to run, and what it reports.

The controller writes a `HostPlan` to a file of the host, which runs it without the
control plane. The host writes a `HostReport` to another file.
"""

import hashlib
import re
from typing import Literal

import msgspec

from inference.engine.wire.messages import (
    BASE_ENVIRONMENT,
    VersionKey,
    VersionToLoad,
)

Kind = Literal["device", "own", "group"]
# Each grows when older code would misunderstand a plan, or a report.
PLAN_FORMAT = 1
REPORT_FORMAT = 1


class EngineProcess(msgspec.Struct, frozen=True, omit_defaults=True):
    """One engine process of a host."""

    # Also the name of its socket and its log: at most 24 characters.
    name: str
    device: str
    kind: Kind = "device"
    environment: str = BASE_ENVIRONMENT
    # Those that it loads when it starts. The engine of a device remembers its own.
    versions: tuple[VersionToLoad, ...] = ()
    # Its memory beyond that of an empty process; 0: no limit.
    memory_limit_bytes: int = 0
    max_run_s: float = 0.0
    network: bool = False
    # Deaths before this time, in seconds since the epoch, count no more.
    released_at: float = 0.0


class HostPlan(msgspec.Struct, frozen=True):
    """The engine processes that one host runs."""

    processes: tuple[EngineProcess, ...] = ()
    # Folders of the environments that are built, by their digests.
    environments: dict[str, str] = {}
    format: int = PLAN_FORMAT


class Death(msgspec.Struct, frozen=True):
    """The end of an engine process that nobody had asked for."""

    # Seconds since the epoch.
    at: float
    process: str
    # The version whose piece ran, or the only one that it holds; None: unknown.
    version: VersionKey | None
    # A sentence: what it did, and why it ended.
    reason: str
    exit_code: int | None = None
    # Name of the signal that ended it, e.g. "SIGKILL".
    signal: str = ""
    # The last lines of its output.
    output: str = ""
    # Rows of the piece that ran; 0: none ran.
    rows: int = 0
    # It was loading a version.
    loading: bool = False


class ProcessReport(msgspec.Struct, frozen=True):
    """One engine process as its host sees it."""

    name: str
    state: Literal["starting", "running", "waiting", "stopping", "quarantined"]
    pid: int = 0
    # Seconds since the epoch.
    started_at: float = 0.0
    # Memory beyond that of an empty process.
    memory_bytes: int = 0
    # Pairs of time and `memory_bytes`, a minute apart, the newest last.
    memory_samples: tuple[tuple[float, int], ...] = ()
    # Its sandbox: what holds it, by name, and why not where it does not.
    walls: dict[str, str] = {}
    # Why it does not run, for people.
    problem: str = ""
    # Versions that it does not load any more: it died twice while each of them ran.
    quarantined: tuple[VersionKey, ...] = ()


class HostReport(msgspec.Struct, frozen=True):
    """A host and its engine processes."""

    host: str
    # Seconds since the epoch.
    at: float
    format: int = REPORT_FORMAT
    devices: tuple[str, ...] = ()
    memory_bytes: int = 0
    memory_used_bytes: int = 0
    walls: dict[str, str] = {}
    processes: tuple[ProcessReport, ...] = ()
    # The newest last; kept for a day, the last two of each process for longer.
    deaths: tuple[Death, ...] = ()


def process_name(version: VersionToLoad, replica: int = 0) -> str:
    """Name the process of one version; another artifact has another process."""
    key = version.key
    readable = re.sub(r"[^a-z0-9]+", "-", key.model.lower()).strip("-")[:10]
    identity = f"{key.model}\0{key.version}\0{version.path}\0{version.environment}"
    digest = hashlib.sha256(identity.encode()).hexdigest()[:6]
    number = f".{replica}" if replica else ""
    return f"{readable or 'v'}-{digest}{number}"


def group_name(
    name: str,
    *,
    device: str = "cpu",
    environment: str = BASE_ENVIRONMENT,
    network: bool = False,
) -> str:
    """Name the process of a group of versions; what differs has its own process."""
    identity = name
    if (device, environment, network) != ("cpu", BASE_ENVIRONMENT, False):
        identity = f"{name}\0{device}\0{environment}\0{network}"
    digest = hashlib.sha256(identity.encode()).hexdigest()[:6]
    return f"group-{name[:10]}-{digest}"
