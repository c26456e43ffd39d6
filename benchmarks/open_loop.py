"""Send requests on a schedule, without waiting for earlier answers: an open loop.

A closed loop waits for answers, so it never sends a slow server more than it can
handle: it cannot show overload.
"""

import asyncio
import time
from dataclasses import dataclass
from typing import Self, cast

_HEAD_END = b"\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Answered:
    """One request: when it was sent, its answer, and how long that took."""

    # Seconds since the generator began.
    sent_s: float
    # 0: the connection was lost before an answer.
    status: int
    took_s: float
    retry_after_s: int | None = None
    version: str = ""
    # Body of a refusal; empty for a good answer.
    body: str = ""


class Generator:
    """Send one request again and again over as many connections as needed."""

    def __init__(
        self, port: int, path: str, body: bytes, *, token: str, timeout_s: float = 40.0
    ) -> None:
        self._port = port
        self._timeout_s = timeout_s
        self.request = (
            f"POST {path} HTTP/1.1\r\nhost: localhost\r\n"
            f"authorization: Bearer {token}\r\ncontent-type: application/json\r\n"
            f"content-length: {len(body)}\r\n\r\n"
        ).encode() + body
        self.answers: list[Answered] = []
        self._idle: list[_Connection] = []
        self._open: set[_Connection] = set()
        self._connecting: set[asyncio.Task[None]] = set()
        self.in_flight = self.sent = 0
        self._began = time.perf_counter()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        for connection in list(self._open):
            connection.close()
        # Let the transports close.
        await asyncio.sleep(0.01)

    def now(self) -> float:
        return time.perf_counter() - self._began

    async def connect(self, count: int) -> None:
        """Open connections in advance."""
        for _ in range(count):
            self._idle.append(await self._connect())

    async def send(self, requests_per_s: float, seconds: float) -> list[Answered]:
        """Send at a steady rate; return the answers to these requests."""
        started = self.now()
        total = round(requests_per_s * seconds)
        sent = 0
        while sent < total:
            # Send all that are due at once, since timers are not exact.
            due = min(int((self.now() - started) * requests_per_s) + 1, total)
            while sent < due:
                sent += 1
                self.sent += 1
                if self._idle:
                    self._idle.pop().send(self.now())
                    continue
                self.in_flight += 1
                task = asyncio.create_task(self._send_on_new(self.now()))
                self._connecting.add(task)
                task.add_done_callback(self._connecting.discard)
            await asyncio.sleep(0.001)
        ended = self.now()
        await self.all_answered()
        return [one for one in self.answers if started <= one.sent_s <= ended]

    async def all_sent(self, count: int) -> None:
        """Wait until `count` requests have been sent since the beginning."""
        while self.sent < count:
            await asyncio.sleep(0.01)

    async def all_answered(self) -> None:
        """Wait for all answers; requests that hang stay in `in_flight`."""
        deadline = self.now() + self._timeout_s
        while self.in_flight and self.now() < deadline:
            await asyncio.sleep(0.01)

    async def _send_on_new(self, now: float) -> None:
        try:
            connection = await self._connect()
        except OSError:
            self.answers.append(Answered(now, 0, self.now() - now))
        else:
            connection.send(now)
        finally:
            self.in_flight -= 1

    async def _connect(self) -> "_Connection":
        _, protocol = await asyncio.get_running_loop().create_connection(
            lambda: _Connection(self), "127.0.0.1", self._port
        )
        return protocol

    # Called by connections.

    def opened(self, connection: "_Connection") -> None:
        self._open.add(connection)

    def answered(self, connection: "_Connection", answer: Answered) -> None:
        self.in_flight -= 1
        self.answers.append(answer)
        if answer.status and not connection.closing:
            self._idle.append(connection)

    def lost(self, connection: "_Connection") -> None:
        self._open.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)


class _Connection(asyncio.Protocol):
    def __init__(self, generator: Generator) -> None:
        self._generator = generator
        self._transport: asyncio.Transport | None = None
        self._received = bytearray()
        self._sent_s: float | None = None
        self.closing = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._generator.opened(self)

    def send(self, now: float) -> None:
        assert self._transport is not None
        self._generator.in_flight += 1
        self._sent_s = now
        self._transport.write(self._generator.request)

    def data_received(self, data: bytes) -> None:
        self._received += data
        end = self._received.find(_HEAD_END)
        if end < 0 or self._sent_s is None:
            return
        lines = bytes(self._received[:end]).decode().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines[1:])
        length = end + len(_HEAD_END) + int(headers.get("content-length", "0"))
        if len(self._received) < length:
            return
        status = int(lines[0].split(" ")[1])
        body = b"" if status == 200 else self._received[end + len(_HEAD_END) : length]
        self._received.clear()
        self.closing = headers.get("connection") == "close"
        retry_after = headers.get("retry-after")
        self._end(
            status,
            None if retry_after is None else int(retry_after),
            headers.get("x-model-version", ""),
            body.decode(),
        )

    def connection_lost(self, exc: Exception | None) -> None:
        self._generator.lost(self)
        if self._sent_s is not None:
            self._end(0)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def _end(
        self,
        status: int,
        retry_after_s: int | None = None,
        version: str = "",
        body: str = "",
    ) -> None:
        assert self._sent_s is not None
        sent_s, self._sent_s = self._sent_s, None
        took_s = self._generator.now() - sent_s
        self._generator.answered(
            self, Answered(sent_s, status, took_s, retry_after_s, version, body)
        )
