"""Load one gRPC server with h2load and read its report.

h2load is written in C and takes some microseconds per call; a client in Python takes
more than the servers that it measures. h2load does not know gRPC and counts every
answer with HTTP status 200 as a success. So this module counts the bytes of answers: a
failed call has a status in its trailers, but no message.
"""

import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import grpc

from benchmarks.load import Measured

METHOD = "/inference.GRPCInferenceService/ModelInfer"
_PREFIX_BYTES = 5
_WARM_UP_S = 2


class H2loadFailed(Exception):
    """The output of h2load cannot be read, or the server does not answer."""


def installed() -> bool:
    return shutil.which("h2load") is not None


def run(
    target: str,
    message: bytes,
    *,
    connections: int,
    calls: int,
    seconds: int,
    key: str = "",
) -> Measured:
    """Keep `calls` in flight on each connection for `seconds`, after a warm-up."""
    answer = _answer(target, message, key)
    with tempfile.TemporaryDirectory() as folder:
        body, log = Path(folder) / "body", Path(folder) / "log"
        body.write_bytes(b"\0" + len(message).to_bytes(4) + message)
        command = [
            *("h2load", "--threads", "1", "--clients", str(connections)),
            *("--max-concurrent-streams", str(calls), "--data", str(body)),
            *("--header", "content-type: application/grpc"),
            *("--header", "te: trailers"),
            *(("--header", f"authorization: Bearer {key}") if key else ()),
            f"http://{target}{METHOD}",
        ]
        _h2load(command, _WARM_UP_S)
        report = _h2load([*command, f"--log-file={log}"], seconds)
        return parse(report, log.read_text(), _PREFIX_BYTES + len(answer))


def _answer(target: str, message: bytes, key: str) -> bytes:
    """Call once, as a client does."""
    metadata = (("authorization", f"Bearer {key}"),) if key else ()
    with grpc.insecure_channel(target) as channel:
        try:
            answer: bytes = channel.unary_unary(METHOD)(
                message, metadata=metadata, timeout=20, wait_for_ready=True
            )
        except grpc.RpcError as error:
            raise H2loadFailed(f"{target} does not answer: {error}") from error
    return answer


def _h2load(command: list[str], seconds: int) -> str:
    # The address is last.
    timed = [*command[:1], "--duration", str(seconds), *command[1:]]
    return subprocess.run(timed, capture_output=True, text=True, check=True).stdout


def parse(report: str, log: str, answer_bytes: int) -> Measured:
    """Read a report, and the log with the microseconds of each request.

    `answer_bytes` is the size of each answer's DATA; the total must fit the number of
    requests that are done.
    """
    rate = re.search(r"finished in [\d.]+\w+, ([\d.]+) req/s", report)
    done = re.search(r"(\d+) done, (\d+) succeeded", report)
    data = re.search(r"\((\d+)\) data", report)
    if rate is None or done is None or data is None:
        raise H2loadFailed(report)
    times = sorted(int(line.split("\t")[2]) / 1000 for line in log.splitlines())
    answered = min(int(data[1]) // answer_bytes, int(done[2]))
    failures = int(done[1]) - answered
    return Measured(
        requests_per_s=float(rate[1]) * answered / max(int(done[1]), 1),
        p50_ms=percentile(times, 0.5),
        p99_ms=percentile(times, 0.99),
        failures=failures,
    )


def percentile(times: list[float], share: float) -> float:
    return times[int(len(times) * share)] if times else float("nan")
