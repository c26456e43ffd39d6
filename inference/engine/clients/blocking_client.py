"""Call an engine synchronously over plain sockets, one call at a time on each."""

import os
import socket
import threading
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any, TypeVar

from inference.engine.clients import inbox, requests
from inference.engine.wire import frames
from inference.engine.wire.calls import ExplanationCall, PredictionCall, StreamCall
from inference.engine.wire.frames import (
    ForeignFormat,
    Frame,
    FrameDecoder,
    MalformedFrame,
)
from inference.engine.wire.messages import (
    Accepted,
    Credit,
    EngineStatus,
    Explained,
    Failed,
    GetStatus,
    Load,
    Predicted,
    Reply,
    StreamChunk,
    StreamEnd,
    Unload,
    VersionKey,
    VersionToLoad,
)
from inference.engine.wire.tensors import Prediction

_CONTROL_TIMEOUT_S = 10.0
_RECEIVE_BYTES = 256 * 1024
_MAX_IDLE = 16

R = TypeVar("R", bound=Reply)


class BlockingEngineClient:
    """A synchronous client for all threads; after a fork it opens its own sockets."""

    def __init__(self, path: str | Path) -> None:
        self._path = str(path)
        self._lock = threading.Lock()
        self._idle: list[socket.socket] = []
        self._pid = os.getpid()

    def predict(self, call: PredictionCall) -> Prediction:
        data = requests.predict(0, call)
        reply, body = self._call(data, Predicted, call.timeout_s)
        try:
            return requests.prediction(reply, body)
        except MalformedFrame as error:
            raise requests.died() from error

    def stream(self, call: StreamCall) -> Generator[Any, None, None]:
        data = requests.stream(0, call)
        deadline = time.monotonic() + call.timeout_s
        connection = self._connect(deadline)
        try:
            yield from _read_stream(connection, data, deadline)
        except TimeoutError:
            raise requests.timed_out() from None
        except ForeignFormat as error:
            raise requests.foreign_format(error) from error
        except (OSError, MalformedFrame) as error:
            raise requests.died() from error
        finally:
            # This also tells the engine that nobody reads any more.
            connection.close()

    def explain(self, call: ExplanationCall) -> Explained:
        data = requests.explain(0, call)
        return self._call(data, Explained, call.timeout_s)[0]

    def load(self, version: VersionToLoad) -> None:
        self._call(frames.encode(Load(0, version)), Accepted)

    def unload(self, key: VersionKey) -> None:
        self._call(frames.encode(Unload(0, key)), Accepted)

    def status(self) -> EngineStatus:
        return self._call(frames.encode(GetStatus(0)), EngineStatus)[0]

    def close(self) -> None:
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def _call(
        self, data: bytes, expected: type[R], timeout_s: float = _CONTROL_TIMEOUT_S
    ) -> tuple[R, memoryview]:
        deadline = time.monotonic() + timeout_s
        connection = self._take_idle() or self._connect(deadline)
        frame = self._exchange(connection, data, deadline)
        try:
            reply = frames.decode_reply(frame.header)
        except MalformedFrame as error:
            raise requests.died() from error
        if isinstance(reply, Failed):
            raise requests.error(reply)
        if not isinstance(reply, expected):
            raise requests.died()
        return reply, frame.body

    def _exchange(
        self, connection: socket.socket, data: bytes, deadline: float
    ) -> Frame:
        try:
            frame = _send_and_receive(connection, data, deadline)
        except TimeoutError:
            # Closing tells the engine that nobody waits any more.
            connection.close()
            raise requests.timed_out() from None
        except ForeignFormat as error:
            connection.close()
            raise requests.foreign_format(error) from error
        except (OSError, MalformedFrame) as error:
            connection.close()
            raise requests.died() from error
        except BaseException:
            connection.close()
            raise
        self._give_back(connection)
        return frame

    def _connect(self, deadline: float) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.settimeout(_left(deadline, time.monotonic))
            connection.connect(self._path)
        except TimeoutError:
            connection.close()
            raise requests.timed_out() from None
        except OSError as error:
            connection.close()
            raise requests.connection_lost("the engine is not there") from error
        return connection

    def _take_idle(self) -> socket.socket | None:
        """Return an idle socket whose engine has not ended since its last call.

        A call is sent only once, because it may be what ends the engine.
        """
        with self._lock:
            if self._pid != os.getpid():
                # The parent process still uses these; this closes only our copies.
                for connection in self._idle:
                    connection.close()
                self._idle.clear()
                self._pid = os.getpid()
            while self._idle:
                connection = self._idle.pop()
                if _is_open(connection):
                    return connection
                connection.close()
        return None

    def _give_back(self, connection: socket.socket) -> None:
        with self._lock:
            if len(self._idle) < _MAX_IDLE and self._pid == os.getpid():
                self._idle.append(connection)
                return
        connection.close()


def _is_open(idle: socket.socket) -> bool:
    """Return whether the other end of a socket without traffic is open."""
    # With a timeout, Python would wait for data. Each call sets its own.
    idle.setblocking(False)
    try:
        idle.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return True
    except OSError:
        return False
    # It ended, or sent what nobody asked for.
    return False


def _send_and_receive(connection: socket.socket, data: bytes, deadline: float) -> Frame:
    return next(_exchange_many(connection, data, deadline))


def _read_stream(
    connection: socket.socket, data: bytes, deadline: float
) -> Generator[Any, None, None]:

    def grant(count: int) -> None:
        connection.settimeout(_left(deadline, time.monotonic))
        connection.sendall(frames.encode(Credit(0, count)))

    returns = inbox.Returns(grant)
    for frame in _exchange_many(connection, data, deadline):
        reply = frames.decode_reply(frame.header)
        if isinstance(reply, Failed):
            raise requests.error(reply)
        if isinstance(reply, StreamEnd):
            return
        if not isinstance(reply, StreamChunk):
            raise MalformedFrame("neither a chunk nor an end")
        yield inbox.read_chunk(reply.chunk)
        returns.count(reply.chunk)


def _exchange_many(
    connection: socket.socket, data: bytes, deadline: float
) -> Generator[Frame, None, None]:
    """Send one request and yield all frames that come back."""
    decoder = FrameDecoder()
    connection.settimeout(_left(deadline, time.monotonic))
    connection.sendall(data)
    while True:
        connection.settimeout(_left(deadline, time.monotonic))
        received = connection.recv(_RECEIVE_BYTES)
        if not received:
            raise ConnectionResetError
        yield from decoder.feed(received)


def _left(deadline: float, clock: Callable[[], float]) -> float:
    left = deadline - clock()
    if left <= 0:
        raise TimeoutError
    return left
