"""Engines in processes of their own that can be killed, and start in milliseconds.

Run as a program, this is what starts them: it has imported what they need, and forks
one for each line that it reads. Each doubles the first column of its rows, and notes
each row that it gets in a file. A row with the value DEADLY ends its process.
"""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import numpy as np

from inference.engine.wire import frames, tensors
from inference.engine.wire.errors import EngineErrorCode
from inference.engine.wire.messages import (
    EngineStatus,
    Failed,
    GetStatus,
    Predict,
    Predicted,
    StreamChunk,
    StreamEnd,
    StreamRequest,
    VersionKey,
    VersionStatus,
)
from inference.engine.wire.tensors import Tensor

DEADLY = -1.0
ROOT = Path(__file__).parents[3]


class EngineProcesses:
    """Start engines and kill them; use it as a context."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._pids: dict[str, int] = {}
        self._rows = folder / "rows"
        self._starter = subprocess.Popen(
            [sys.executable, "-m", "tests.inference.gateway.engine_processes"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> "EngineProcesses":
        return self

    def __exit__(self, *_: object) -> None:
        for name in list(self._pids):
            self.kill(name)
        self._starter.kill()
        self._starter.wait()
        self._starter.stdin.close()
        self._starter.stdout.close()

    def path(self, name: str) -> str:
        return str(self._folder / f"{name}.sock")

    def start(self, name: str, *, loading_s: float = 0.0, row_s: float = 0.0) -> None:
        """Start an engine; return when it listens."""
        order = {
            "path": self.path(name),
            "rows": str(self._rows),
            "loading_s": loading_s,
            "row_s": row_s,
        }
        self._starter.stdin.write(json.dumps(order) + "\n")
        self._starter.stdin.flush()
        self._pids[name] = int(self._starter.stdout.readline())

    def kill(self, name: str) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._pids.pop(name), signal.SIGKILL)

    def is_alive(self, name: str) -> bool:
        try:
            os.kill(self._pids[name], 0)
        except ProcessLookupError:
            return False
        return True

    def rows(self) -> list[float]:
        """Return the rows that all engines got, in no order."""
        if not self._rows.exists():
            return []
        return [float(line) for line in self._rows.read_text().split()]


class _Engine(asyncio.Protocol):
    def __init__(self, order: dict, ready_at: float, rows: int) -> None:
        self._order = order
        self._ready_at = ready_at
        self._rows = rows
        self._decoder = frames.FrameDecoder()

    def connection_made(self, transport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        for frame in self._decoder.feed(data):
            request = frames.decode_request(frame.header)
            ready = time.monotonic() >= self._ready_at
            if isinstance(request, GetStatus):
                self._tell(request.id, ready)
            elif not isinstance(request, Predict | StreamRequest):
                continue
            elif not ready:
                code = EngineErrorCode.LOADING
                self._transport.write(frames.encode(Failed(request.id, code, "")))
            else:
                [tensor] = tensors.decode(request.tensors, frame.body)
                value = float(tensor.data[0, 0])
                os.write(self._rows, b"%f\n" % value)
                if value == DEADLY:
                    os.kill(os.getpid(), signal.SIGKILL)
                loop = asyncio.get_running_loop()
                loop.call_later(
                    self._order["row_s"], self._answer, request, tensor.data
                )

    def _tell(self, request_id: int, ready: bool) -> None:
        version = VersionStatus(
            VersionKey("m", 1), state="ready" if ready else "loading"
        )
        status = EngineStatus(request_id, "cpu", os.getpid(), 1, (version,), {})
        self._transport.write(frames.encode(status))

    def _answer(self, request, data) -> None:
        if isinstance(request, StreamRequest):
            chunk = StreamChunk(request.id, msgspec.Raw(b"\x01"))
            self._transport.write(frames.encode(chunk))
            self._transport.write(frames.encode(StreamEnd(request.id, 1)))
            return
        header, buffer = tensors.encode(Tensor("output", data * np.float32(2)))
        reply = Predicted(request.id, (header,), 1, 1, len(data))
        self._transport.write(frames.encode(reply, buffer))


def _run(order: dict, pid_to: int) -> None:
    rows = os.open(order["rows"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    ready_at = time.monotonic() + order["loading_s"]

    async def serve() -> None:
        path = order["path"]
        Path(path).unlink(missing_ok=True)
        await asyncio.get_running_loop().create_unix_server(
            lambda: _Engine(order, ready_at, rows), path
        )
        os.write(pid_to, b"%d\n" % os.getpid())
        await asyncio.Event().wait()

    asyncio.run(serve())


def main() -> None:
    # Ended engines leave no zombies.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for line in sys.stdin:
        if not os.fork():
            _run(json.loads(line), sys.stdout.fileno())


if __name__ == "__main__":
    main()
