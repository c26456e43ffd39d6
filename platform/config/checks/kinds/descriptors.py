"""Look at the limit on open files against the connections that gateways allow."""

import os
import resource
from pathlib import Path

from config.checks import presence
from config.checks.finding import Finding, unknown, warning, well
from inference.gateway import settings as gateway_settings

TITLE = "Open files"

FEW = warning(
    "few-open-files",
    "A process may open {limit} files, but {connections} connections need {needed}.",
    cost="Many clients at once keep all others out.",
    mend="LimitNOFILE={needed}  # in the unit, or lower MODELYARD_MAX_CONNECTIONS",
)
PROBLEMS = (FEW,)


def look() -> list[Finding]:
    environment = {**os.environ, "MODELYARD_PROCESS": ""}
    try:
        gateway = gateway_settings.from_environment(environment)
    except ValueError:
        return [unknown("Not looked at: gateways refuse their settings.")]
    return judge(limit=_limit(), connections=gateway.max_connections)


def judge(*, limit: int | None, connections: int) -> list[Finding]:
    needed = gateway_settings.files_needed(connections)
    if limit is not None and limit < needed:
        return [FEW.found(limit=limit, connections=connections, needed=needed)]
    shown = "any number of" if limit is None else f"{limit:,}"
    return [well(f"A process may open {shown} files; {needed:,} are needed.")]


def _limit() -> int | None:
    """Return the hard limit of the service, or else of this process; None: no limit.

    Gateways raise their own limit up to the hard one.
    """
    if (process := presence.supervisor()) is not None:
        for line in Path(f"/proc/{process.pid}/limits").read_text().splitlines():
            if line.startswith("Max open files"):
                hard = line.split()[4]
                return None if hard == "unlimited" else int(hard)
    _, limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    return None if limit == resource.RLIM_INFINITY else limit
