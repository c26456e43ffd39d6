"""One engine process: what it should be, what it is, and what it uses."""

import contextlib
from pathlib import Path
from typing import Literal

import msgspec

from inference.engine.wire.messages import VersionKey
from inference.engine.wire.notes import Note, NoteReader
from inference.engine.wire.orders import EngineOrder
from inference.host import machine, output, scratch
from inference.installation.home import Home
from inference.installation.log_lines import log_files
from inference.placement.processes import EngineProcess, ProcessReport

# Memory is reported once a minute, for four hours.
_SAMPLE_S = 60.0
_SAMPLES = 240


class Child:
    """The host's view of one engine process of its plan."""

    def __init__(self, process: EngineProcess, home: Home) -> None:
        self.process = process
        self._home = home
        self.state: Literal[
            "starting", "running", "waiting", "stopping", "quarantined"
        ] = "waiting"
        self.pid = 0
        # The plan does not name it any more.
        self.unwanted = False
        # Why the host ends it; empty: it may go on.
        self.asked = ""
        self.problem = ""
        self.quarantined: tuple[VersionKey, ...] = ()
        # Versions while whose load it died.
        self.fragile: frozenset[VersionKey] = frozenset()
        # Deaths since it last ran well, and when it may start again (monotonic).
        self.deaths = 0
        self.start_at = 0.0
        # When it was started (monotonic and wall clock), and when to kill it.
        self.started_at = 0.0
        self.started_wall = 0.0
        self.kill_at = float("inf")
        # When it was first seen stopped (monotonic).
        self.stopped_at: float | None = None
        self.memory_bytes = 0
        self.samples: list[tuple[float, int]] = []
        # More than this cannot be there without its models, whatever it notes.
        self.most_empty_bytes = 1 << 62
        self._empty_bytes = 0
        self._others_bytes = 0
        self._log_start = 0
        self._notes: NoteReader | None = None

    @property
    def name(self) -> str:
        return self.process.name

    @property
    def walled(self) -> bool:
        return self.process.kind != "device"

    @property
    def log(self) -> Path:
        return self._home.engine_log(self.name)

    @property
    def scratch(self) -> Path:
        return self._home.scratch(self.name)

    def order(
        self, *, host_pid: int, readable: tuple[str, ...], logs_to_stdout: bool
    ) -> EngineOrder:
        """Make its files anew, and return the order that starts it."""
        notes = self._home.engine_notes(self.name)
        if self._notes is not None:
            self._notes.close()
        self._notes = NoteReader(notes)
        if self.walled:
            scratch.clear(self.scratch)
            self.scratch.mkdir(parents=True, mode=0o700)
        self._log_start = log_files.size(self.log)
        self._empty_bytes = self._others_bytes = self.memory_bytes = 0
        self.samples = []
        self.stopped_at = None
        self.asked = ""
        self.kill_at = float("inf")
        process = self.process
        if process.kind == "group":
            # Versions may join it while it runs.
            readable = (*readable, str(self._home.artifacts))
        return EngineOrder(
            name=process.name,
            device=process.device,
            host_pid=host_pid,
            versions=tuple(
                msgspec.structs.replace(version, fragile=version.key in self.fragile)
                for version in process.versions
            ),
            walled=self.walled,
            network=process.network,
            refused=self.quarantined,
            output=str(self.log),
            logs_to_stdout=logs_to_stdout,
            notes=str(notes),
            scratch=str(self.scratch) if self.walled else "",
            readable=readable,
        )

    def notes(self) -> list[Note]:
        return self._notes.read() if self._notes is not None else []

    def beat(self) -> float:
        """Return when its event loop last turned (monotonic); 0: not yet."""
        return self._notes.beat() if self._notes is not None else 0.0

    def tail(self) -> str:
        """Return the last lines that it wrote since it was started."""
        return output.tail(self.log, since=self._log_start)

    def measure(self, others_bytes: int | None = None) -> None:
        """Look at its memory; `others_bytes`: that of its own children."""
        if others_bytes is not None:
            self._others_bytes = others_bytes
        if not self._empty_bytes and self._notes is not None:
            self._empty_bytes = min(self._notes.empty(), self.most_empty_bytes)
        if self._empty_bytes:
            used = machine.rss(self.pid) + self._others_bytes - self._empty_bytes
            self.memory_bytes = max(used, 0)

    def sample(self, now: float) -> None:
        """Keep the memory for the report, once a minute; `now` is wall clock."""
        if not self.samples or now - self.samples[-1][0] >= _SAMPLE_S:
            self.samples = [*self.samples[-_SAMPLES + 1 :], (now, self.memory_bytes)]

    def clean_up(self) -> None:
        """Remove its files, except for its log."""
        if self._notes is not None:
            self._notes.close()
            self._notes = None
        for path in (
            self._home.engine_socket(self.name),
            self._home.engine_notes(self.name),
        ):
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
        if self.walled:
            with contextlib.suppress(OSError):
                scratch.clear(self.scratch)

    def report(self) -> ProcessReport:
        return ProcessReport(
            name=self.name,
            state=self.state,
            pid=self.pid,
            started_at=self.started_wall if self.pid else 0.0,
            memory_bytes=self.memory_bytes,
            memory_samples=tuple(self.samples),
            walls=self._notes.walls() if self._notes is not None else {},
            problem=self.problem,
            quarantined=self.quarantined,
        )
