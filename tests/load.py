"""Send calls from many connections, on an event loop in a thread of its own."""

import asyncio
import itertools
import json
import threading
import time
from dataclasses import dataclass

import numpy as np
from grpc import StatusCode, aio

from inference.dialects.open_inference.open_inference_pb2 import (
    ModelInferRequest,
    ModelInferResponse,
)
from tests.machine import BODY, MODEL, PREDICT

_ANSWER_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class Call:
    """One call; `status` is the HTTP status, or 0 if no answer came.

    `code` is the code of an error that was answered.
    """

    token: str
    request_id: str
    sent: float
    took: float
    status: int
    code: str = ""

    @property
    def gateway(self):
        """The boot id of the gateway that answered: its ids begin with it."""
        return self.request_id.removeprefix("req_")[:16]


class HttpConnection:
    def __init__(self, port):
        self._port = port
        self._streams = None

    async def ask(self, token):
        """Return request id, status and code of one answer."""
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port)
        reader, writer = self._streams
        writer.write(
            b"POST %b HTTP/1.1\r\nhost: x\r\nauthorization: Bearer %b\r\n"
            b"content-length: %d\r\n\r\n%b"
            % (PREDICT.encode(), token.encode(), len(BODY), BODY)
        )
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        first, *lines = head.strip().split("\r\n")
        headers = dict(line.split(": ", 1) for line in lines)
        body = await reader.readexactly(int(headers["content-length"]))
        status = int(first.split()[1])
        code = "" if status == 200 else json.loads(body)["error"]["code"]
        return headers["x-request-id"], status, code

    async def close(self):
        if self._streams is not None:
            self._streams[1].close()


class GrpcConnection:
    _STATUSES = {
        StatusCode.UNAUTHENTICATED: 401,
        StatusCode.RESOURCE_EXHAUSTED: 429,
    }

    def __init__(self, port):
        # A connection of its own, which the kernel may give to any gateway.
        self._channel = aio.insecure_channel(
            f"127.0.0.1:{port}", options=[("grpc.use_local_subchannel_pool", 1)]
        )
        self._infer = self._channel.unary_unary(
            "/inference.GRPCInferenceService/ModelInfer",
            request_serializer=ModelInferRequest.SerializeToString,
            response_deserializer=ModelInferResponse.FromString,
        )
        self._request = ModelInferRequest(model_name=MODEL)
        self._request.inputs.add(name="input", datatype="FP32", shape=[1, 2])
        row = np.array([[1.0, 2.0]], "<f4")
        self._request.raw_input_contents.append(row.tobytes())

    async def ask(self, token):
        try:
            await self._infer(self._request, metadata=(("x-api-key", token),))
        except aio.AioRpcError as error:
            return "", self._STATUSES.get(error.code(), 0), error.code().name
        return "", 200, ""

    async def close(self):
        await self._channel.close()


class Load:
    """Connections that call with each token in turn; `calls` has the results."""

    def __init__(
        self, port, tokens, *, connections, pause_s=0.05, connect=HttpConnection
    ):
        self._port = port
        self._tokens = tokens
        self._connections = connections
        self._pause_s = pause_s
        self._connect = connect
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=asyncio.run, args=(self._main(),))
        self.calls = []

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *error):
        self.stop()

    def stop(self):
        """Let each connection finish its call; then all of them are in `calls`."""
        self._stopping.set()
        self._thread.join()

    def of(self, token, status=200):
        """Return the calls with this token and this outcome."""
        return [
            call for call in self.calls if (call.token, call.status) == (token, status)
        ]

    def answered(self):
        """Return the request ids of all answers."""
        return [call.request_id for call in self.calls if call.status]

    async def _main(self):
        async with asyncio.TaskGroup() as group:
            for number in range(self._connections):
                group.create_task(self._client(number))

    async def _client(self, number):
        connection = self._connect(self._port)
        for turn in itertools.count(number):
            if self._stopping.is_set():
                break
            token = self._tokens[turn % len(self._tokens)]
            sent = time.monotonic()
            try:
                async with asyncio.timeout(_ANSWER_TIMEOUT_S):
                    request_id, status, code = await connection.ask(token)
            except (OSError, EOFError, TimeoutError) as error:
                request_id, status, code = "", 0, type(error).__name__
                await connection.close()
                connection = self._connect(self._port)
            took = time.monotonic() - sent
            self.calls.append(Call(token, request_id, sent, took, status, code))
            await asyncio.sleep(self._pause_s)
        await connection.close()


def percentile(calls, percent):
    """Return the time within which this share of the calls was answered."""
    times = sorted(call.took for call in calls)
    return times[min(len(times) - 1, int(len(times) * percent / 100))]
