"""A client that sends raw frames, built on hyper's libraries and not on our code."""

import asyncio
import contextlib
import functools

import msgspec
import numpy as np
from hpack import Decoder, Encoder
from hyperframe import frame as hyper

from inference.dialects.open_inference.open_inference_pb2 import ModelInferRequest
from inference.engine.signatures.signature import Layout, Signature
from inference.gateway.grpc.server import GrpcServer, GrpcSettings
from tests.fakes import ManualClock
from tests.inference.gateway.plant import KEY

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
INFER = "/inference.GRPCInferenceService/ModelInfer"
STREAM = "/inference.GRPCInferenceService/ModelStreamInfer"
LIVE = "/inference.GRPCInferenceService/ServerLive"


def on_loop(test):
    """Run a coroutine function as a test."""

    @functools.wraps(test)
    def run(*arguments, **named):
        asyncio.run(test(*arguments, **named))

    return run


def head(path=INFER, *, key=KEY.token, without=(), **changed):
    """Return a call's headers; `changed` has Python names, and None removes one."""
    fields = {
        ":method": "POST",
        ":scheme": "http",
        ":path": path,
        ":authority": "public",
        "content-type": "application/grpc",
        "te": "trailers",
    }
    if key:
        fields["authorization"] = f"Bearer {key}"
    for name, value in changed.items():
        fields[name.replace("_", "-")] = value
    return [
        (name, value)
        for name, value in fields.items()
        if value is not None and name not in without
    ]


def framed(message, *, compressed=False, length=None):
    """Put gRPC's prefix before a message."""
    size = len(message) if length is None else length
    return bytes([compressed]) + size.to_bytes(4) + message


# The answer of ServerLive.
ALIVE = framed(b"\x08\x01")


def row(*values, model="m", **members):
    """Write a request for the doubles of one row of numbers."""
    request = ModelInferRequest(model_name=model, **members)
    request.inputs.add(name="input", datatype="FP32", shape=[1, len(values)])
    request.raw_input_contents.append(np.array(values, "<f4").tobytes())
    return request.SerializeToString()


def serve_wide(plant, width):
    """Let the plant's only model have rows of this width."""
    snapshot = plant.tables.as_snapshot()
    [model] = snapshot.models
    signature = Signature(layout=Layout.TENSOR, shape=(width,))
    version = msgspec.structs.replace(model.versions[0], signature=signature)
    model = msgspec.structs.replace(model, versions=(version,))
    plant.tables.replace(msgspec.structs.replace(snapshot, models=(model,)))


class Peer:
    """One connection, which collects what it receives as frames of hyperframe."""

    def __init__(self, reader, writer):
        self.reader, self.writer = reader, writer
        self.encoder, self.decoder = Encoder(), Decoder()
        self.frames = []
        # For each stream: headers and trailers, and the DATA so far.
        self.blocks = {}
        self.data = {}
        self.closed = False

    def send(self, *frames):
        self.raw(b"".join(frame.serialize() for frame in frames))

    def raw(self, data):
        self.writer.write(data)

    def greet(self, **settings):
        self.raw(PREFACE)
        numbers = {getattr(hyper.SettingsFrame, k): v for k, v in settings.items()}
        self.send(hyper.SettingsFrame(0, settings=numbers))

    def headers(self, stream_id, fields=None, *, flags=("END_HEADERS",), block=None):
        if block is None:
            block = self.encoder.encode(fields if fields is not None else head())
        return hyper.HeadersFrame(stream_id, block, flags=flags)

    def call(self, stream_id, message=b"", fields=None):
        """Send a whole call."""
        self.send(
            self.headers(stream_id, fields),
            hyper.DataFrame(stream_id, framed(message), flags=("END_STREAM",)),
        )

    async def until(self, condition, timeout_s=20):
        """Read until a condition is true."""
        async with asyncio.timeout(timeout_s):
            while not condition():
                await self._read()

    async def end(self, timeout_s=20):
        """Read until the server closes; return the code of its GOAWAY, or None."""
        async with asyncio.timeout(timeout_s):
            while not self.closed:
                await self._read()
        found = self.of(hyper.GoAwayFrame)
        return found[-1].error_code if found else None

    async def reset(self, stream_id):
        """Wait until a stream is reset; return the code."""
        await self.until(lambda: self._resets(stream_id))
        return self._resets(stream_id)[0].error_code

    async def answer(self, stream_id):
        """Wait for the end of an answer; return its headers and its DATA."""
        await self.until(lambda: self.ended(stream_id))
        return self.blocks[stream_id], self.data.get(stream_id, b"")

    async def pong(self):
        """Wait until the server has read what was sent before."""
        before = len(self._pongs())
        self.send(hyper.PingFrame(0, b"12345678"))
        await self.until(lambda: len(self._pongs()) > before)

    async def until_called(self, plant, times=1):
        """Wait until the plant's engine has got this many calls."""
        async with asyncio.timeout(20):
            while plant.engine.calls < times:
                await asyncio.sleep(0.005)

    def of(self, kind, stream_id=None):
        return [
            frame
            for frame in self.frames
            if isinstance(frame, kind) and stream_id in (None, frame.stream_id)
        ]

    def ended(self, stream_id):
        return any(
            "END_STREAM" in frame.flags
            for frame in self.frames
            if frame.stream_id == stream_id
        )

    def pings(self):
        """Return the pings that need an answer."""
        return [f for f in self.of(hyper.PingFrame) if "ACK" not in f.flags]

    def _pongs(self):
        return [frame for frame in self.of(hyper.PingFrame) if "ACK" in frame.flags]

    def _resets(self, stream_id):
        return self.of(hyper.RstStreamFrame, stream_id)

    async def _read(self):
        try:
            header = await self.reader.readexactly(9)
            frame, length = hyper.Frame.parse_frame_header(memoryview(header))
            frame.parse_body(memoryview(await self.reader.readexactly(length)))
        except (asyncio.IncompleteReadError, ConnectionError):
            assert not self.closed, "the server hung up"
            self.closed = True
            return
        self.frames.append(frame)
        if isinstance(frame, hyper.HeadersFrame):
            fields = self.blocks.setdefault(frame.stream_id, {})
            fields.update(self.decoder.decode(frame.data))
        elif isinstance(frame, hyper.DataFrame):
            before = self.data.get(frame.stream_id, b"")
            self.data[frame.stream_id] = before + frame.data


class Serving:
    """A server with a clock of its own, and peers of it."""

    def __init__(self, plant, **settings):
        self.clock = ManualClock(1_000.0)
        settings = {"max_message_bytes": 1024 * 1024} | settings
        self.server = GrpcServer(
            plant.driver, GrpcSettings(**settings), clock=self.clock
        )

    def pass_time(self, seconds, *, step_s=0.5):
        """Let time pass, and let the server sweep."""
        for _ in range(int(seconds / step_s)):
            self.clock.advance(step_s)
            self.server.sweep()

    async def pass_life(self, peer, seconds):
        """Let time pass while the client answers pings."""
        for _ in range(int(seconds / 5)):
            await peer.pong()
            self.pass_time(5)

    @contextlib.asynccontextmanager
    async def peer(self, *, greet=True, address=None, **settings):
        reader, writer = await asyncio.open_connection(
            "127.0.0.1",
            self.server.port,
            local_addr=None if address is None else (address, 0),
        )
        peer = Peer(reader, writer)
        if greet:
            peer.greet(**settings)
        try:
            yield peer
        finally:
            writer.close()

    async def emptied(self):
        """Wait until all connections are closed, and check that nothing is left."""
        async with asyncio.timeout(10):
            while self.server.connections:
                await asyncio.sleep(0.01)
        assert self.server.calls == 0

    async def answered(self):
        """Wait until no call is under way."""
        async with asyncio.timeout(10):
            while self.server.calls:
                await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def serving(plant, **settings):
    found = Serving(plant, **settings)
    await found.server.start()
    try:
        yield found
        await found.answered()
    finally:
        await found.server.stop(0)
