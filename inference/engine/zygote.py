"""Fork engine processes from one that has imported their libraries.

`python -m inference.engine.zygote --socket 3`: a host starts one for each Python
environment, and sends orders over the socket. The engine's process starts in
milliseconds, and shares the libraries' memory with all others. It is a child of the
host, not of the zygote: the host is their subreaper (PR_SET_CHILD_SUBREAPER(2const)),
and the process between them ends at once. So engines survive their zygote.

The zygote has no threads and no CUDA context; neither survives a fork.
"""

import argparse
import contextlib
import ctypes
import gc
import os
import random
import resource
import select
import signal
import socket
import sys
import time
import traceback
from pathlib import Path
from typing import NoReturn

import msgspec
import psutil

from inference.engine import libraries, process
from inference.engine import settings as engine_settings
from inference.engine.settings import EngineSettings
from inference.engine.wire import orders
from inference.engine.wire.orders import EngineOrder, Forked, Imported, NotForked

_PR_SET_PDEATHSIG = 1
# The time in which processes load their versions undisturbed by further imports.
_UNDISTURBED_S = 3.0


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m inference.engine.zygote")
    parser.add_argument("--socket", type=int, required=True)
    link = socket.socket(fileno=parser.parse_args().socket)
    link.set_inheritable(False)
    settings = engine_settings.from_environment()
    # Unless they are told otherwise, libraries start threads when they are imported.
    process.configure_libraries(settings)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Zygote(link, settings).run()


class Zygote:
    def __init__(self, link: socket.socket, settings: EngineSettings) -> None:
        self._link = link
        self._plugins = tuple(name.partition(":")[0] for name in settings.plugins)
        # Steps of imports that are done.
        self._steps = 0
        # Orders that wait for further steps.
        self._waiting: list[EngineOrder] = []

    def run(self) -> None:
        """Import the libraries, then fork for each order until the host is gone."""
        # Imports leave next to nothing to collect, and looking for it takes a tenth of
        # their time.
        gc.disable()
        seconds = 0.0
        for names in (*libraries.STEPS, self._plugins):
            started = time.monotonic()
            libraries.import_step(names)
            self._steps += 1
            # Collections in the children must not touch the memory that all share.
            gc.freeze()
            seconds += time.monotonic() - started
            self._fork_those_that_can()
        gc.collect()
        gc.freeze()
        gc.enable()
        self._reply(Imported(int(seconds * 1000), _memory_bytes()))
        while (order := self._receive()) is not None:
            self._fork(order)

    def _fork_those_that_can(self) -> None:
        """Fork for the orders that need no further imports, and give them some time.

        Return at once if others wait for further imports, or if nobody has asked.
        """
        pause_s = 0.0
        while True:
            while select.select([self._link], [], [], pause_s)[0]:
                pause_s = 0.0
                order = self._receive()
                if order is None:
                    sys.exit(0)
                self._waiting.append(order)
            asked, self._waiting = self._waiting, []
            for order in asked:
                if libraries.steps_for(order) <= self._steps:
                    self._fork(order)
                else:
                    self._waiting.append(order)
            if self._waiting or not asked:
                return
            pause_s = _UNDISTURBED_S

    def _receive(self) -> EngineOrder | None:
        """Return the next order; None: the host is gone."""
        try:
            return orders.receive_order(self._link)
        except ConnectionError:
            return None

    def _reply(self, reply: orders.ZygoteReply) -> None:
        with contextlib.suppress(ConnectionError):  # the host ends; so do we
            self._link.send(orders.encode(reply))

    def _fork(self, order: EngineOrder) -> None:
        reader, writer = os.pipe()
        try:
            between = os.fork()
        except OSError as error:
            os.close(reader)
            os.close(writer)
            self._reply(NotForked(order.name, str(error)))
            return
        if between == 0:
            _fork_again(order, writer, self._link)
        os.close(writer)
        with os.fdopen(reader, "rb") as pipe:
            pid = pipe.read()
        os.waitpid(between, 0)
        if pid:
            self._reply(Forked(order.name, int(pid), _memory_bytes()))
        else:
            self._reply(NotForked(order.name, "the process could not fork"))


def _memory_bytes() -> int:
    return int(psutil.Process().memory_info().rss)


def _fork_again(order: EngineOrder, writer: int, link: socket.socket) -> NoReturn:
    """Leave a child that the host adopts, and end."""
    try:
        child = os.fork()
        if child:
            os.write(writer, str(child).encode())
            os._exit(0)
        os.close(writer)
        link.close()
        _be_engine(order)
    except BaseException:
        traceback.print_exc()
        os._exit(70)


def _be_engine(order: EngineOrder) -> NoReturn:
    gc.enable()
    os.setsid()
    _end_with(order.host_pid)
    log = os.dup(1) if order.logs_to_stdout else None
    _redirect(Path(order.output))
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    _forget_randomness()
    if order.walled:
        # If memory is short, the kernel ends these first.
        with contextlib.suppress(OSError):
            Path("/proc/self/oom_score_adj").write_text("500")
    settings = msgspec.structs.replace(
        engine_settings.from_environment(), device=order.device
    )
    _name_process(f"modelyard-engine {order.name}")
    os._exit(process.run(settings, order, output=log))


def _end_with(host_pid: int) -> None:
    """Wait until the host has adopted this process, then never outlive it."""
    deadline = time.monotonic() + 10.0
    while os.getppid() != host_pid:
        if time.monotonic() > deadline:
            os._exit(71)
        time.sleep(0.0005)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != host_pid:
        os._exit(71)


def _redirect(output: Path) -> None:
    """Write standard output and errors, also of libraries, to the process's log."""
    log = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    nothing = os.open(os.devnull, os.O_RDONLY)
    sys.stdout.flush()
    sys.stderr.flush()
    for source, target in ((nothing, 0), (log, 1), (log, 2)):
        os.dup2(source, target)
    os.close(log)
    os.close(nothing)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _name_process(name: str) -> None:
    """Show this name in lists of processes, in place of the zygote's command.

    The command stands between fields 48 and 49 of proc_pid_stat(5).
    """
    with contextlib.suppress(OSError, ValueError):
        fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        start, end = int(fields[45]), int(fields[46])
        if 0 < start < end:
            text = name.encode()[: end - start - 1]
            ctypes.memset(start, 0, end - start)
            ctypes.memmove(start, text, len(text))


def _forget_randomness() -> None:
    """Give each process random numbers of its own."""
    random.seed()
    if numpy := sys.modules.get("numpy"):
        numpy.random.seed()
    if torch := sys.modules.get("torch"):
        torch.manual_seed(int.from_bytes(os.urandom(8), "little") >> 1)


if __name__ == "__main__":
    main()
