"""Listen on a socket for HTTP/1.1: limit, time out and drain its connections."""

import asyncio
import secrets
import socket
import time
from collections.abc import Callable, Hashable
from email.utils import formatdate

from accounts.admission.networks import Networks
from inference.errors.api_error import ApiError
from inference.errors.rendering import render
from inference.gateway.http1.connection import Http1Connection
from inference.gateway.http1.exchange import Headers, HeadReading, Request
from inference.gateway.http1.known_heads import KnownHeads
from inference.gateway.http1.large_body import LargeBodies
from inference.gateway.owners import holder
from inference.installation.shares import Shares

_SWEEP_S = 0.5
_BACKLOG = 2048
# When we are told to stop, clients that hold a connection open may have sent requests
# that we have not read yet. We answer what arrives within this time.
_LAST_REQUESTS_S = 1.0

Application = Callable[[Request], HeadReading]


class Listener:
    """Serve one socket with one application; implements `Http1Listening`."""

    def __init__(
        self,
        application: Application,
        *,
        header_timeout_s: float,
        idle_timeout_s: float,
        max_connections: int,
        trusted_proxies: Networks = Networks(()),  # noqa: B008  # It never changes.
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.read = application
        self.now = clock
        self.heads = KnownHeads()
        self.large_bodies = LargeBodies()
        self._header_timeout_s = header_timeout_s
        self._idle_timeout_s = idle_timeout_s
        self._trusted_proxies = trusted_proxies
        self._server: asyncio.Server | None = None
        self._socket: socket.socket | None = None
        self._sweeper: asyncio.Task[None] | None = None
        self.connections: dict[Http1Connection, Hashable] = {}
        # Places for connections, which addresses share; a trusted proxy's connections
        # are of many clients (`owners.holder`).
        self.places = Shares(max_connections)
        # Connections that were ended because the client read too slowly.
        self.cut_off = 0
        self.date_line = b""
        self._update_date_line()

    async def listen(self, listening: socket.socket) -> None:
        """Serve until `drain`."""
        # Another name of the socket, which outlives the server.
        self._socket = listening.dup()
        self._server = await self.serve(listening)
        self._sweeper = asyncio.create_task(self._keep_sweeping())

    async def serve(self, listening: socket.socket) -> asyncio.Server:
        """Accept connections; the caller has to sweep and to close."""
        loop = asyncio.get_running_loop()
        unix = listening.family == socket.AF_UNIX
        create = loop.create_unix_server if unix else loop.create_server
        return await create(
            lambda: Http1Connection(self), sock=listening, backlog=_BACKLOG
        )

    async def drain(self, timeout_s: float) -> None:
        """Accept no more connections, and close each one after its answer."""
        if self._server is not None:
            self._server.close()
        if self._socket is not None:
            await self._take_waiting(self._socket)
        for connection in list(self.connections):
            connection.drain()
        deadline = self.now() + timeout_s
        last_requests = self.now() + min(_LAST_REQUESTS_S, timeout_s)
        while self.connections and self.now() < deadline:
            if self.now() >= last_requests:
                for connection in list(self.connections):
                    if connection.idle:
                        connection.close()
            await asyncio.sleep(0.01)
        for connection in list(self.connections):
            connection.abort()
        if self._sweeper is not None:
            self._sweeper.cancel()

    async def _take_waiting(self, listening: socket.socket) -> None:
        """Accept the connections that the kernel holds for us, and no others.

        It would reset them when the socket closes, although others listen on the port.
        """
        loop = asyncio.get_running_loop()
        with listening:
            while True:
                try:
                    accepted, _ = listening.accept()
                except OSError:
                    return
                accepted.setblocking(False)
                await loop.connect_accepted_socket(
                    lambda: Http1Connection(self), accepted
                )

    def sweep(self) -> None:
        self._update_date_line()
        now = self.now()
        for connection in list(self.connections):
            connection.sweep(
                now,
                header_timeout_s=self._header_timeout_s,
                idle_timeout_s=self._idle_timeout_s,
            )

    # Http1Listening

    def join(self, connection: Http1Connection) -> bool:
        owner = holder(connection, self._trusted_proxies)
        if not self.places.take(owner):
            return False
        self.connections[connection] = owner
        return True

    def leave(self, connection: Http1Connection) -> None:
        if connection in self.connections:
            self.places.give_back(self.connections.pop(connection))

    def note_cut_off(self) -> None:
        self.cut_off += 1

    def refusal(self, error: ApiError) -> tuple[int, Headers, bytes]:
        request_id = f"req_{secrets.token_hex(12)}"
        return render(error, request_id=request_id, now=time.time())

    async def _keep_sweeping(self) -> None:
        while True:
            await asyncio.sleep(_SWEEP_S)
            self.sweep()

    def _update_date_line(self) -> None:
        self.date_line = f"date: {formatdate(usegmt=True)}\r\n".encode()
