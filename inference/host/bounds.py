"""Find what breaks a bound, and must be ended with its process."""

from collections.abc import Sequence
from typing import NamedTuple

from inference.engine.settings import EngineSettings
from inference.engine.wire.notes import Note
from inference.host.scratch import MOST_FILES
from inference.placement.processes import EngineProcess

# A piece may run so long if the plan does not say otherwise.
DEFAULT_MAX_RUN_S = 60.0
# Without a piece that runs, an event loop turns at least this often.
MOST_SILENT_S = 30.0
# A process that stopped itself.
MOST_STOPPED_S = 3.0
_MB = 1024 * 1024


class Use(NamedTuple):
    """What one engine process does and uses; times are monotonic seconds."""

    notes: Sequence[Note]
    # When its event loop last turned; 0: it is still starting.
    beat: float
    # Since when the process is stopped (SIGSTOP); None: it is not.
    stopped_at: float | None
    memory_bytes: int
    # None: more files than are counted, or some that cannot be seen.
    scratch_bytes: int | None = 0
    processes: int = 1


def broken(
    use: Use, process: EngineProcess, settings: EngineSettings, *, now: float
) -> str:
    """Return the sentence about the bound that is broken; empty: none is."""
    max_run_s = process.max_run_s or DEFAULT_MAX_RUN_S
    running = [note for note in use.notes if not note.loading]
    if running and now - running[0].began_at > max_run_s:
        return f"one batch ran longer than {max_run_s:g} s (max_run_s)."
    if use.stopped_at is not None and now - use.stopped_at > MOST_STOPPED_S:
        return "it had been stopped by SIGSTOP."
    if use.beat and not use.notes and now - use.beat > MOST_SILENT_S:
        return f"it did nothing for {MOST_SILENT_S:g} s, although nothing ran."
    limit = process.memory_limit_bytes
    if 0 < limit < use.memory_bytes:
        return f"it used {use.memory_bytes // _MB} MB; its limit is {limit // _MB} MB."
    limit = settings.max_scratch_bytes
    if use.scratch_bytes is None:
        return (
            f"its scratch folder cannot be measured: there are more than {MOST_FILES} "
            "files, or folders too deep or closed to be read."
        )
    if use.scratch_bytes > limit:
        return (
            f"it wrote {use.scratch_bytes // _MB} MB to its scratch folder; "
            f"the limit is {limit // _MB} MB."
        )
    if use.processes > settings.max_processes:
        return (
            f"it had {use.processes} processes of its own; "
            f"the limit is {settings.max_processes}."
        )
    return ""
