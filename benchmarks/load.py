"""Load one server with wrk and read its report."""

import json
import re
import subprocess
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_UNITS_MS = {"us": 0.001, "ms": 1.0, "s": 1000.0, "m": 60_000.0}


class WrkFailed(Exception):
    """wrk is missing, or its output cannot be read."""


@dataclass(frozen=True, slots=True)
class Target:
    """The request that is sent again and again."""

    url: str
    # An object, sent as JSON.
    body: dict[str, Any] | bytes
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Measured:
    """Requests per second answered with 2xx, and latencies in milliseconds."""

    requests_per_s: float
    p50_ms: float
    p99_ms: float
    # Answers that were not 2xx, and socket errors.
    failures: int


def run(target: Target, *, connections: int, seconds: int) -> Measured:
    """Keep `connections` requests in flight for `seconds`, after a short warm-up."""
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "request.lua"
        body = Path(folder) / "body"
        given = target.body
        body.write_bytes(
            given if isinstance(given, bytes) else json.dumps(given).encode()
        )
        script.write_text(_lua(target, body))
        _wrk(script, target.url, connections, seconds=2)
        return parse(_wrk(script, target.url, connections, seconds), seconds)


def _wrk(script: Path, url: str, connections: int, seconds: int) -> str:
    command = [
        *("wrk", "--threads", "1", "--connections", str(connections)),
        *("--duration", f"{seconds}s", "--timeout", "10s", "--latency"),
        *("--script", str(script), url),
    ]
    try:
        return subprocess.run(
            command, capture_output=True, text=True, check=True
        ).stdout
    except FileNotFoundError as error:
        raise WrkFailed("wrk is not installed; on Debian: apt install wrk") from error


def _lua(target: Target, body: Path) -> str:
    headers = {"Content-Type": "application/json", **target.headers}
    lines = [
        'wrk.method = "POST"',
        f'local file = io.open("{body}", "rb")',
        'wrk.body = file:read("*a")',
        "file:close()",
        *(
            f"wrk.headers[{json.dumps(k)}] = {json.dumps(v)}"
            for k, v in headers.items()
        ),
    ]
    return "\n".join(lines)


def parse(output: str, seconds: float) -> Measured:
    """Read wrk's report; `seconds` is how long it ran."""
    total = re.search(r"(\d+) requests in ([\d.]+)(\w+)", output)
    if total is None:
        raise WrkFailed(output)
    refused = _count(r"Non-2xx or 3xx responses: (\d+)", output)
    broken = re.search(
        r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", output
    )
    elapsed_s = float(total[2]) * _UNITS_MS[total[3]] / 1000
    return Measured(
        requests_per_s=(int(total[1]) - refused) / elapsed_s,
        p50_ms=_latency("50", output),
        p99_ms=_latency("99", output),
        failures=refused + (sum(map(int, broken.groups())) if broken else 0),
    )


def _count(pattern: str, output: str) -> int:
    found = re.search(pattern, output)
    return int(found[1]) if found else 0


def _latency(percentile: str, output: str) -> float:
    found = re.search(rf"\s{percentile}%\s+([\d.]+)(us|ms|s|m)\b", output)
    return float(found[1]) * _UNITS_MS[found[2]] if found else float("nan")
