"""Look at the engines: their host, what holds them, and versions in trouble."""

import time
from collections.abc import Mapping, Sequence

from django.conf import settings

from config.checks import presence
from config.checks.finding import Finding, fault, first_line, in_words, or_well, warning
from inference.conditions.reading import states_of_named
from inference.conditions.states import TROUBLES, ServingState
from inference.installation import walls
from inference.placement import report_file
from inference.placement.processes import HostReport

TITLE = "Engines"
_SILENT_AFTER_S = 30.0
_SHOWN = 3

SILENT = fault(
    "host-silent",
    "The host of engine processes was last seen {when}.",
    cost="Nobody starts or watches engine processes: a version whose process ends "
    "answers no more.",
    mend="sudo journalctl -u modelyard -n 200 -o cat | grep host",
)
PROCESS_AWAY = warning(
    "engine-away",
    "The engine process {name} does not run: {reason}.",
    cost="Its versions answer elsewhere, or 503 MODEL_UNAVAILABLE.",
    mend="sudo -u modelyard tail -n 50 {log}",
)
OPEN = warning(
    "sandbox-open",
    "The sandbox of models with their authors' code is open here: {walls}.",
    cost="Such a model can read or disturb more than its own files.",
    mend="Use Linux 6.12 or later with Landlock, or serve only models whose authors "
    "you trust.",
)
QUARANTINED = warning(
    "version-quarantined",
    "{names} in quarantine: {reason}.",
    cost="Nobody is answered by it until a person releases it.",
    mend="In the admin, read its page, mend the model, and press Release.",
)
FAILED = warning(
    "version-failed",
    "{names} cannot be loaded: {reason}.",
    cost="Its route keeps the former version, or answers 503 MODEL_UNAVAILABLE.",
    mend="In the admin, read its page: it says what is missing.",
)
PROBLEMS = (SILENT, PROCESS_AWAY, OPEN, QUARANTINED, FAILED)


def look() -> list[Finding]:
    if stopped := presence.not_running():
        return [*_of_walls(walls.available()), *stopped]
    report = report_file.read(settings.HOME.host_report)
    found = of_host(report, now=time.time(), logs=str(settings.HOME.logs))
    troubled = [
        (state.state, str(version), state.reason)
        for version, state in states_of_named()
        if state.state in TROUBLES
    ]
    found += of_versions(troubled)
    return or_well(found, "The host runs, and no version is in trouble.")


def of_host(report: HostReport | None, *, now: float, logs: str) -> list[Finding]:
    if report is None:
        return [SILENT.found(when="never")]
    if now - report.at > _SILENT_AFTER_S:
        return [SILENT.found(when=f"{in_words(now - report.at)} ago")]
    away = [
        PROCESS_AWAY.found(
            name=it.name,
            reason=first_line(it.problem or it.state),
            log=f"{logs}/engine-{it.name}.log",
        )
        for it in report.processes
        # What is in quarantine shows as its version.
        if it.state == "waiting"
    ]
    return [*away[:_SHOWN], *_of_walls(report.walls)]


def _of_walls(reported: Mapping[str, str]) -> list[Finding]:
    gaps = walls.gaps(dict(reported))
    return [OPEN.found(walls=", ".join(gaps))] if gaps else []


def of_versions(
    troubled: Sequence[tuple[ServingState, str, str]],
) -> list[Finding]:
    """Return one finding for each kind of trouble, with the first versions in it."""
    found = []
    for problem, quarantined in ((QUARANTINED, True), (FAILED, False)):
        of_kind = [
            (name, reason)
            for state, name, reason in troubled
            if (state is ServingState.QUARANTINED) == quarantined
        ]
        if not of_kind:
            continue
        names = ", ".join(name for name, _ in of_kind[:_SHOWN])
        if len(of_kind) > _SHOWN:
            names += f" and {len(of_kind) - _SHOWN} more"
        names += " is" if quarantined and len(of_kind) == 1 else ""
        names += " are" if quarantined and len(of_kind) > 1 else ""
        found.append(problem.found(names=names, reason=first_line(of_kind[0][1])))
    return found
