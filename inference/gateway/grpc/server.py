"""Serve the gRPC port of a gateway: limit, time out and drain its connections."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Hashable
from pathlib import Path

import msgspec

from inference.gateway.driver.driver import GatewayDriver
from inference.gateway.grpc import statuses
from inference.gateway.grpc.call_head import GrpcHead, read_head
from inference.gateway.grpc.calls import GrpcCall, StreamingCall, UnaryCall, WatchedCall
from inference.gateway.grpc.certificates import Certificates
from inference.gateway.grpc.health import HealthService
from inference.gateway.grpc.inflating import Inflators
from inference.gateway.grpc.methods import Shape
from inference.gateway.grpc.reflection import ReflectionService
from inference.gateway.grpc.service import InferenceService
from inference.gateway.grpc.statuses import Status
from inference.gateway.http2 import limits
from inference.gateway.http2.connection import Http2Connection
from inference.gateway.http2.header_blocks import Fields
from inference.gateway.http2.large_messages import LargeMessages
from inference.gateway.http2.reading_turns import ReadingTurns
from inference.gateway.http2.stream import Carrier, Stream
from inference.gateway.open_inference.facts import OpenInferenceFacts
from inference.gateway.owners import holder, stranger
from inference.installation.shares import Shares
from inference.installation.sockets import bound

_SWEEP_S = 0.5
# How often to look for a replaced certificate.
_LOOK_S = 2.0
_BACKLOG = 2048
# If a client does not answer the ping that goes with GOAWAY, we still answer calls that
# arrive within this time: it may have sent them before it knew.
_LAST_CALLS_S = 1.0
# At the end of the grace time, clients need this long to read that their calls are
# refused.
_LAST_WORDS_S = 0.5
_CALLS: dict[Shape, type[GrpcCall]] = {
    Shape.UNARY: UnaryCall,
    Shape.STREAMED: StreamingCall,
    Shape.WATCHED: WatchedCall,
}
_TOO_MANY = statuses.refusal(Status.RESOURCE_EXHAUSTED, "Too many calls at once.")


class GrpcSettings(msgspec.Struct, frozen=True, kw_only=True):
    host: str = "127.0.0.1"
    port: int = 0
    # Largest message, in either direction.
    max_message_bytes: int
    # Other gateways of this machine listen on the same port.
    shared: bool = False
    # PEM files; without them calls are not encrypted.
    certificate: Path | None = None
    key: Path | None = None
    # Clients must show a certificate of this authority.
    client_ca: Path | None = None
    # More clients at once are turned away.
    max_connections: int = 10_000
    # A client may take this long for a message.
    message_timeout_s: float = 20.0


class PortTaken(OSError):
    """The port of gRPC cannot be bound; the text names it."""


class GrpcServer:
    """Serve one port; implements `Http2Listening` and the `Rules` of calls."""

    answer_head = statuses.ANSWER_HEAD

    def __init__(
        self,
        driver: GatewayDriver,
        settings: GrpcSettings,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Bind the port; raises PortTaken, OSError for unreadable certificates."""
        self.now = clock
        self.max_message_bytes = settings.max_message_bytes
        self.message_timeout_s = settings.message_timeout_s
        self.unread = driver.unread
        # Places for connections, which addresses share; a trusted proxy's connections
        # are of many clients (`owners.holder`).
        self._places = Shares(settings.max_connections)
        self._trusted_proxies = driver.plan.trusted_proxies
        facts = OpenInferenceFacts(
            driver.plan, driver.engines, driver.health, clock=driver.clock
        )
        self._service = InferenceService(driver, facts)
        self._health = HealthService(
            facts, is_draining=lambda: self._draining, clock=driver.clock
        )
        self._methods = (
            self._service.methods | self._health.methods | ReflectionService().methods
        )
        self._draining = False
        self.certificates = None
        if settings.certificate is not None and settings.key is not None:
            self.certificates = Certificates(
                settings.certificate, settings.key, settings.client_ca
            )
        self.turns = ReadingTurns()
        # Two of the largest messages must find room, even if one customer sends both.
        most_bytes = max(limits.MAX_ALL_LARGE_BYTES, 4 * settings.max_message_bytes)
        self.large_messages = LargeMessages(most_bytes)
        self.inflators = Inflators(most_bytes, message_bytes=settings.max_message_bytes)
        # Connections, with the owner whose share of places each uses.
        self.connections: dict[Http2Connection, Hashable] = {}
        # Calls on all connections.
        self.calls = 0
        # Calls with a key, shared by customers; calls without, shared by addresses, and
        # how many of these each connection has.
        self._calls = Shares(limits.MAX_ALL_CALLS)
        self._keyless = Shares(limits.MAX_ALL_KEYLESS_CALLS)
        self._keyless_calls: Counter[Carrier] = Counter()
        driver.metrics.bounds |= {
            "grpc_connections": self._places,
            "grpc_large_message_bytes": self.large_messages.shares,
            "grpc_inflated_bytes": self.inflators.shares,
            "grpc_calls": self._calls,
            "grpc_calls_without_key": self._keyless,
        }
        self._server: asyncio.Server | None = None
        self._sweeper: asyncio.Task[None] | None = None
        try:
            self._listening = bound(
                settings.host, settings.port, shared=settings.shared
            )
        except OSError as error:
            host = f"[{settings.host}]" if ":" in settings.host else settings.host
            address = f"{host}:{settings.port}"
            raise PortTaken(f"cannot listen on {address} for gRPC") from error
        self._listening.listen(_BACKLOG)
        self.port: int = self._listening.getsockname()[1]

    async def start(self) -> None:
        tls = None if self.certificates is None else self.certificates.context
        self._server = await asyncio.get_running_loop().create_server(
            lambda: Http2Connection(self),
            sock=self._listening,
            backlog=_BACKLOG,
            ssl=tls,
            ssl_handshake_timeout=None if tls is None else limits.GREETING_S,
        )
        self._sweeper = asyncio.create_task(self._keep_sweeping())

    async def stop(self, grace_s: float) -> None:
        """Accept no more calls, and let those in flight finish within `grace_s`.

        Calls that do not finish are refused so that clients may retry elsewhere.
        """
        if self._server is not None:
            self._server.close()
        self._listening.close()
        self._draining = True
        for connection in list(self.connections):
            connection.drain()
        deadline = self.now() + grace_s
        last_words = deadline - min(_LAST_WORDS_S, grace_s / 2)
        last_calls = self.now() + min(_LAST_CALLS_S, grace_s)
        while self.connections and self.now() < deadline:
            if self.now() >= last_calls:
                for connection in list(self.connections):
                    connection.finish_draining()
            if self.now() >= last_words:
                for connection in list(self.connections):
                    connection.cut_off()
            await asyncio.sleep(0.01)
        for connection in list(self.connections):
            connection.abort()
        self.inflators.close()
        if self._sweeper is not None:
            self._sweeper.cancel()

    def sweep(self) -> None:
        now = self.now()
        for connection in list(self.connections):
            connection.sweep(now)

    # Http2Listening

    def join(self, connection: Http2Connection) -> bool:
        owner = holder(connection, self._trusted_proxies)
        if not self._places.take(owner):
            return False
        self.connections[connection] = owner
        return True

    def leave(self, connection: Http2Connection) -> None:
        if connection in self.connections:
            self._places.give_back(self.connections.pop(connection))

    def interpret(self, fields: Fields) -> GrpcHead:
        return read_head(fields, self._methods)

    def open(
        self, connection: Http2Connection, stream_id: int, head: GrpcHead
    ) -> GrpcCall:
        self.calls += 1
        shape = Shape.UNARY if head.method is None else head.method.shape
        return _CALLS[shape](connection, stream_id, head, self)

    def close(self, stream: Stream) -> None:
        self.calls -= 1
        assert isinstance(stream, GrpcCall)
        stream.count_read()
        stream.forget_inflated()
        owner = stream.owner
        if owner is None:
            return
        if not stream.head.keyless:
            self._calls.give_back(owner)
            return
        self._keyless.give_back(owner)
        connection = stream.connection
        self._keyless_calls[connection] -= 1
        if not self._keyless_calls[connection]:
            del self._keyless_calls[connection]

    # Rules

    def why_not(self, call: GrpcCall) -> bytes | None:
        if call.head.keyless:
            return self._why_not_keyless(call)
        caller = self._service.find_caller(call)
        if isinstance(caller, bytes):
            return caller
        customer_id = caller.key.customer_id
        if not self._calls.take(customer_id):
            return _TOO_MANY
        call.owner = customer_id
        return None

    def _why_not_keyless(self, call: GrpcCall) -> bytes | None:
        connection = call.connection
        if self._keyless_calls[connection] >= limits.MAX_KEYLESS_CALLS:
            return _TOO_MANY
        owner = stranger(connection.client)
        if not self._keyless.take(owner):
            return _TOO_MANY
        call.owner = owner
        self._keyless_calls[connection] += 1
        return None

    async def _keep_sweeping(self) -> None:
        looked = self.now()
        while True:
            await asyncio.sleep(_SWEEP_S)
            self.sweep()
            if self.certificates is not None and self.now() - looked >= _LOOK_S:
                looked = self.now()
                self.certificates.look()
