"""Load one gRPC server from several processes: `python -m benchmarks.grpc_load`.

Messages are encoded in advance, so that a client is as cheap as possible in Python.
That is still more than a call costs our server, so use it for streams, and for calls
only if h2load is not installed. Each stream has one request in flight.
"""

import argparse
import asyncio
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from grpc import StatusCode, aio

from benchmarks.h2load import percentile
from benchmarks.load import Measured

_SERVICE = "/inference.GRPCInferenceService/"
_CHANNELS = 8
_WARM_UP_S = 2.0


def run(
    target: str,
    message: Path,
    *,
    streams: int,
    seconds: int,
    streaming: bool = False,
    key: str = "",
    processes: int = 2,
) -> Measured:
    """Keep a request in flight on each stream, from several client processes."""
    command = [
        *(sys.executable, "-m", "benchmarks.grpc_load", target, str(message)),
        *("--streams", str(streams // processes), "--seconds", str(seconds)),
        *("--key", key, *(["--streaming"] if streaming else [])),
    ]
    clients = [
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        for _ in range(processes)
    ]
    found = [json.loads(client.communicate()[0]) for client in clients]
    times = sorted(value for each in found for value in each["times_ms"])
    return Measured(
        requests_per_s=len(times) / seconds,
        p50_ms=percentile(times, 0.5),
        p99_ms=percentile(times, 0.99),
        failures=sum(each["failures"] for each in found),
    )


class _Client:
    def __init__(self, arguments: argparse.Namespace) -> None:
        self._message = Path(arguments.message).read_bytes()
        self._metadata = (
            (("authorization", f"Bearer {arguments.key}"),) if arguments.key else ()
        )
        begins = time.perf_counter() + _WARM_UP_S
        self._begins, self._ends = begins, begins + arguments.seconds
        self.times_ms: list[float] = []
        self.failures = 0

    async def call_again(self, channel: Any) -> None:
        call = channel.unary_unary(_SERVICE + "ModelInfer")
        while (sent := time.perf_counter()) < self._ends:
            try:
                await call(self._message, metadata=self._metadata)
            except aio.AioRpcError as error:
                self._count_failure(error.code())
                continue
            self._count(sent)

    async def stream(self, channel: Any) -> None:
        stream = channel.stream_stream(_SERVICE + "ModelStreamInfer")(
            metadata=self._metadata
        )
        while (sent := time.perf_counter()) < self._ends:
            await stream.write(self._message)
            answer = await stream.read()
            # Field 1 is the error message.
            if answer is aio.EOF or answer[:1] == b"\x0a":
                self._count_failure(StatusCode.UNKNOWN)
                continue
            self._count(sent)
        await stream.done_writing()

    def _count(self, sent: float) -> None:
        if sent >= self._begins:
            self.times_ms.append((time.perf_counter() - sent) * 1000)

    def _count_failure(self, _code: StatusCode) -> None:
        self.failures += 1


async def _load(arguments: argparse.Namespace) -> _Client:
    client = _Client(arguments)
    work = client.stream if arguments.streaming else client.call_again
    # Channels that share a connection would share its flow control.
    options = (("grpc.use_local_subchannel_pool", 1),)
    channels = [
        aio.insecure_channel(arguments.target, options=options)
        for _ in range(min(_CHANNELS, arguments.streams))
    ]
    await asyncio.gather(
        *(work(channels[i % len(channels)]) for i in range(arguments.streams))
    )
    for channel in channels:
        await channel.close()
    return client


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target", help="host:port")
    parser.add_argument("message", help="file with the bytes of a ModelInferRequest")
    parser.add_argument("--streams", type=int, default=64)
    parser.add_argument("--seconds", type=int, default=8)
    parser.add_argument("--streaming", action="store_true")
    parser.add_argument("--key", default="")
    client = asyncio.run(_load(parser.parse_args()))
    print(json.dumps({"times_ms": client.times_ms, "failures": client.failures}))


if __name__ == "__main__":
    main()
