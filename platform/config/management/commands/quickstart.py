"""`modelyard demo`: set up and serve the demo; used by `make run`."""

import contextlib
import json
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from types import FrameType
from typing import Any

import psutil
from django.conf import settings
from django.core.management.base import (
    BaseCommand,
    CommandError,
    CommandParser,
    SystemCheckError,
)
from rich.console import Console
from rich.panel import Panel

from config.demo import contents, first_run
from config.processes import before_start, readiness, specs
from config.processes.supervisor import Supervisor

_READY_TIMEOUT_S = 180.0
# A process that died this often since it last ran well will not recover by itself.
_HOPELESS_DEATHS = 4


class Command(BaseCommand):
    help = "Set up the demo where it is missing, serve it, and print how to call it."
    # They are made once all is ready, because people wait for that.
    requires_system_checks = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--packages-s",
            type=float,
            default=0.0,
            help="seconds that this process took before, for packages",
        )

    def handle(self, *args: Any, packages_s: float = 0.0, **options: Any) -> None:
        self._seconds = {"packages": packages_s} if packages_s > 1 else {}
        console = Console(highlight=False, soft_wrap=True)
        try:
            before_start.check()
            self._set_up(console)
            before_start.check_database()
        except (before_start.CannotStart, contents.SetUpFailed) as error:
            raise CommandError(str(error)) from error
        except KeyboardInterrupt:
            raise CommandError(
                "Stopped before the set-up was complete; the next `make run` goes on "
                "from here."
            ) from None

        supervisor = specs.supervisor()
        supervisor.start()
        tending = threading.Thread(target=self._announce, args=(console, supervisor))
        tending.start()
        try:
            supervisor.run()
        finally:
            supervisor.stop()
            tending.join()
        console.print("Stopped.")

    def _set_up(self, console: Console) -> None:
        stop = _StopAsked()
        # SIGTERM during the set-up ends it like Ctrl-C.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, stop)
        for step in first_run.steps():
            if not step.needed():
                continue
            started = time.monotonic()
            with _progress(console, step.title) as say:
                result = step.act(say)
            seconds = time.monotonic() - started
            self._seconds[step.part] = self._seconds.get(step.part, 0.0) + seconds
            stop.raise_if_asked()
            console.print(f"✓ {step.title} [dim]({seconds:.1f} s)[/dim] {result}")

    def _announce(self, console: Console, supervisor: Supervisor) -> None:
        """Wait until all is ready, then print how to call it; else stop everything."""
        deadline = time.monotonic() + _READY_TIMEOUT_S
        with _progress(console, "Start and wait until every model can answer"):
            while not supervisor.stopping and not readiness.all_ready(timeout_s=2):
                hopeless = [
                    name
                    for name, deaths in supervisor.deaths().items()
                    if deaths >= _HOPELESS_DEATHS
                ]
                if hopeless or time.monotonic() > deadline:
                    self._give_up(console, supervisor, hopeless)
                    return
                time.sleep(0.1)
        if supervisor.stopping:
            return
        took_s = time.time() - psutil.Process().create_time()
        try:
            card = contents.card()
        except contents.NotAnswering as error:
            console.print(f"Modelyard is up, but the demo call failed: {error}")
            return
        if console.is_terminal:
            console.print(Panel(card.facts, title="Modelyard is ready", expand=False))
        else:
            console.print("Modelyard is ready")
            console.print(card.facts)
        # Printed without wrapping, so that people can paste the commands.
        for example in card.examples:
            console.print(f"\n{example.title}", style="bold")
            self.stdout.write(example.command)
            self.stdout.write(json.dumps(example.answer, ensure_ascii=False))
        console.print(f"\n{_told(took_s, self._seconds)}")
        console.print("Ctrl-C stops everything.")
        try:
            self.check()
        except SystemCheckError as error:
            console.print(str(error), markup=False)
            supervisor.request_stop()

    def _give_up(
        self, console: Console, supervisor: Supervisor, hopeless: list[str]
    ) -> None:
        for name in hopeless:
            console.print(f"The {name} process cannot stay up. The end of its log:")
            with contextlib.suppress(OSError):
                for line in supervisor.log_path(name).read_text().splitlines()[-15:]:
                    console.print(f"  {line}", markup=False)
        if not hopeless:
            console.print(
                f"Not ready after {_READY_TIMEOUT_S:.0f} s; see the logs in "
                f"{settings.HOME.logs}."
            )
        supervisor.request_stop()


def _told(took_s: float, parts: Mapping[str, float]) -> str:
    """Say how long it took until every model could answer, and what took the time."""
    rest = took_s - sum(parts.values())
    told = ", ".join(
        f"{name} {s:.1f} s" for name, s in {**parts, "start": rest}.items()
    )
    return f"Ready after {took_s:.1f} s: {told}."


class _StopAsked:
    """A signal handler that raises KeyboardInterrupt and remembers that it did.

    Python drops exceptions that are raised in a finalizer or a callback of C code; a
    stop signal at such a moment must not be lost.
    """

    def __init__(self) -> None:
        self._asked = False

    def __call__(self, _number: int, _frame: FrameType | None) -> None:
        self._asked = True
        raise KeyboardInterrupt

    def raise_if_asked(self) -> None:
        if self._asked:
            raise KeyboardInterrupt


@contextlib.contextmanager
def _progress(console: Console, title: str) -> Iterator[Callable[[str], None]]:
    """Show that a step is running: a spinner on a terminal, plain lines elsewhere."""
    if not console.is_terminal:
        console.print(f"… {title}")
        yield lambda line: console.print(f"  {line}", markup=False)
        return
    with console.status(f"{title} …") as status:

        def say(line: str) -> None:
            console.print(f"  {line}", style="dim", markup=False)
            status.update(f"{title} …")

        yield say
