"""Decide what state a version is in, from what is known of it. Without I/O."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum


class ServingState(StrEnum):
    """The states of a version, in the words that every page uses."""

    SERVING_DEFAULT = "serving (default)"
    SERVING_CANARY = "serving (canary)"
    READY = "ready"
    LOADING = "loading"
    WAITING = "waiting"
    NO_MEMORY = "waiting for memory"
    QUARANTINED = "quarantined"
    FAILED = "failed"
    MISFIT = "does not fit"
    UNTRUSTED = "untrusted"
    UNCALLED = "not called for"


# People must act on these.
TROUBLES = frozenset(
    {
        ServingState.QUARANTINED,
        ServingState.FAILED,
        ServingState.MISFIT,
        ServingState.UNTRUSTED,
    }
)
_UNTRUSTED = "It runs its author's code, and no administrator has trusted its model."


@dataclass(frozen=True, slots=True)
class OnEngine:
    """A version on one engine."""

    engine: str
    # Whether the engine answers.
    running: bool
    # As in `LoadedVersion.State`.
    state: str
    # Why the version failed there, or why the engine does not run.
    error: str = ""

    @property
    def answers(self) -> bool:
        return self.running and self.state == "ready"


@dataclass(frozen=True, slots=True)
class VersionFacts:
    """All inputs of the decision."""

    # A route names it, or it is published, or a job needs it.
    called_for: bool = False
    # Its role in what gateways serve; empty: none.
    served_as: str = ""
    on_engines: Sequence[OnEngine] = ()
    quarantined: bool = False
    # Why it is quarantined.
    quarantine: str = ""
    # Why no process can hold it: its packages, or its memory.
    misfit: str = ""
    # It runs its author's code, which nobody has trusted yet.
    untrusted: bool = False
    # Why it cannot be loaded until somebody acts.
    problem: str = ""
    # What it waits for, if nothing is wrong.
    waits_for: str = ""


@dataclass(frozen=True, slots=True)
class StateReport:
    """The state of a version, and why; the first line of `reason` is a sentence."""

    state: ServingState
    reason: str = ""


_SERVED = {
    "default": ServingState.SERVING_DEFAULT,
    "canary": ServingState.SERVING_CANARY,
}


def state_of(facts: VersionFacts) -> StateReport:
    """Return the state that says most: trouble first, if the version cannot answer."""
    if facts.quarantined:
        return StateReport(ServingState.QUARANTINED, facts.quarantine)
    here = [each for each in facts.on_engines if each.running]
    failed = [each for each in here if each.state == "failed"]
    failure = f"On {failed[0].engine}: {failed[0].error}" if failed else ""
    if any(each.answers for each in here):
        # It answers, though one of its processes may not.
        reason = failure or _why_away(facts.on_engines)
        return StateReport(_SERVED.get(facts.served_as, ServingState.READY), reason)
    if not facts.called_for:
        return StateReport(ServingState.UNCALLED)
    if facts.untrusted:
        return StateReport(ServingState.UNTRUSTED, _UNTRUSTED)
    if facts.misfit:
        return StateReport(ServingState.MISFIT, facts.misfit)
    if facts.problem or failed:
        return StateReport(ServingState.FAILED, failure or facts.problem)
    if any(each.state == "loading" for each in here):
        return StateReport(ServingState.LOADING)
    if here:
        reason = "It loads when somebody calls it: others needed its memory."
        return StateReport(ServingState.NO_MEMORY, reason)
    if facts.on_engines:
        away = facts.on_engines[0].engine
        reason = f"Its engine {away} does not answer."
    else:
        reason = facts.waits_for or "No engine has begun to load it."
    return StateReport(ServingState.WAITING, reason)


def _why_away(engines: Sequence[OnEngine]) -> str:
    """Say which process of a version does not run; empty: all do."""
    for each in engines:
        if not each.running:
            return f"Its process {each.engine} does not run. {each.error}".rstrip()
    return ""
