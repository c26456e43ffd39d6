"""Say why an engine process died, and whether its version may start again."""

import signal
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import msgspec
import structlog

from inference.engine.wire.messages import VersionKey
from inference.engine.wire.notes import Note
from inference.installation import whole_files
from inference.placement import quarantine
from inference.placement.processes import Death, EngineProcess

logger = structlog.get_logger(__name__)

_KEEP_S = 24 * 3600.0
_KEEP = 100
# A quarantine does not end by itself, so its deaths are kept for longer.
_KEEP_LAST_S = 90 * 24 * 3600.0

_decoder = msgspec.json.Decoder(list[Death])


def ended_by(status: int) -> tuple[int | None, str]:
    """Return exit code and name of the signal of a wait status; see waitpid(2)."""
    code = status if status < 0 else None
    if code is None:
        return status, ""
    try:
        return None, signal.Signals(-code).name
    except ValueError:
        return None, f"signal {-code}"


def attribute(
    process: EngineProcess, notes: Sequence[Note]
) -> tuple[VersionKey | None, Note | None]:
    """Return which version ended a process, and what it did; None: unknown.

    Whoever ran longest is named; what loads is named only if nothing ran.
    """
    running = [note for note in notes if not note.loading] or list(notes)
    by_name = {str(version.key): version.key for version in process.versions}
    for note in running:
        # Only the engine of a device, which runs nobody's code, may name others.
        key = by_name.get(note.name)
        if key is None and process.kind == "device":
            key = _key(note.name)
        if key is not None:
            return key, note
    if len(process.versions) == 1:
        return process.versions[0].key, None
    return None, None


def _key(name: str) -> VersionKey | None:
    """Read the text of a VersionKey."""
    model, _, number = name.rpartition(" v")
    return VersionKey(model, int(number)) if model and number.isdecimal() else None


def sentence(
    *, asked: str, exit_code: int | None, signal_name: str, note: Note | None
) -> str:
    """Say what happened; `asked` is why the host ended it, or empty."""
    doing = ""
    if note is not None and note.loading:
        doing = f" while it loaded {note.name}"
    elif note is not None:
        rows = "1 row" if note.rows == 1 else f"{note.rows} rows"
        doing = f" while {note.name} predicted {rows}"
    if asked:
        return f"The process was ended{doing}: {asked}"
    if signal_name == "SIGKILL":
        return (
            f"The process was killed by SIGKILL{doing}, by a person or by the kernel, "
            "which does so when memory is short."
        )
    if signal_name:
        return f"The process was ended by {signal_name}{doing}."
    return f"The process ended by itself with exit code {exit_code}{doing}."


class Deaths:
    """The deaths of the last day, also over a restart of the host."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self.all = _decoder.decode(path.read_bytes())
        except FileNotFoundError:
            self.all = []
        except (OSError, msgspec.DecodeError) as error:
            logger.error("deaths_unreadable", path=str(path), reason=str(error))
            self.all = []

    def add(self, death: Death) -> None:
        self.all = _worth_keeping([*self.all, death])
        try:
            whole_files.write(self._path, msgspec.json.encode(self.all))
        except OSError as error:
            logger.error("deaths_not_kept", reason=str(error))

    def fragile(self, process: EngineProcess) -> frozenset[VersionKey]:
        """Return the versions while whose load a process died."""
        return frozenset(
            death.version
            for death in self.all
            if death.process == process.name
            and death.loading
            and death.version is not None
        )

    def quarantined(self, process: EngineProcess) -> tuple[VersionKey, ...]:
        """Return the versions that a process must not load again."""
        counts: dict[VersionKey, list[float]] = {}
        for death in self.all:
            if (
                death.process == process.name
                and death.version is not None
                and death.at > process.released_at
            ):
                counts.setdefault(death.version, []).append(death.at)
        return tuple(key for key, times in counts.items() if quarantine.is_due(times))


def _worth_keeping(known: Sequence[Death]) -> list[Death]:
    """Return the last deaths of each process, and those of a day without output."""
    kept: list[Death] = []
    seen: Counter[str] = Counter()
    for place, death in enumerate(reversed(known)):
        age_s = known[-1].at - death.at
        seen[death.process] += 1
        if seen[death.process] <= quarantine.MOST_DEATHS and age_s < _KEEP_LAST_S:
            kept.append(death)
        elif place < _KEEP and age_s < _KEEP_S:
            # The whole list is in each report.
            kept.append(msgspec.structs.replace(death, output=""))
    return kept[::-1]
