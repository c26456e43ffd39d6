"""Measure how a stranger's 1,000 sockets slow others: `python -m benchmarks.strangers`.

A whole Modelyard, as `quickstart` starts it, serves people's pages and customers'
predictions, whose daily quotas need leases. Each kind of stranger is measured between
two measurements without strangers, in turns, so that other work on the machine disturbs
all alike. It prints medians of the 99th percentiles over all rounds.
"""

import argparse
import asyncio
import contextlib
import functools
import http.client
import itertools
import json
import multiprocessing
import os
import platform
import random
import re
import socket
import statistics
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

import httpx
import psutil

from benchmarks import modelyard

WORK = Path(__file__).parent / ".work"
# The others come from another address, which has its own share.
ADDRESS = "127.0.0.2"
_EVERY_S = 0.5
# On average: in step with each other they would measure bursts of connections.
_AGAIN_S = 5.0
# TCP_ESTABLISHED of Linux.
_OPEN = b"\x01"
_BUNDLE = "/static/drf_spectacular_sidecar/swagger-ui-dist/swagger-ui-bundle.js"
# Of callers, and of people: more than 240 pages a minute are refused.
_PAUSE_S = 0.01
_LOOKING_S = 0.3
_CUSTOMERS = 20
# A gateway holds a 64th of a quota at most: it asks for more every few seconds.
_MAKE_KEYS = f"""
import json
from accounts.customers import api_keys
from accounts.models import Customer, Plan
plan, _ = Plan.objects.update_or_create(
    name="beside strangers",
    defaults=dict(
        burst_requests=10**6, sustained_requests=10**7,
        daily_quota=50_000, quota_unit="requests",
    ),
)
tokens = []
for n in range({_CUSTOMERS}):
    customer, _ = Customer.objects.get_or_create(
        name=f"beside strangers {{n}}", defaults=dict(plan=plan)
    )
    key = api_keys.issue(customer, name="k", scopes=["predict"])
    tokens.append(key.token)
print(json.dumps(tokens))
"""
_COUNT_LEASES = """
from accounts.models import Lease
print(sum(Lease.objects.values_list("request_number", flat=True)))
"""


@dataclass(frozen=True, slots=True)
class Stranger:
    """What a stranger sends when it connects, and then twice a second."""

    first: bytes
    then_reads: bool = False
    then_sends: bool = False


def reads_nothing(path: str) -> Stranger:
    return Stranger(f"GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n".encode() * 2)


def reads_little(path: str) -> Stranger:
    return Stranger(reads_nothing(path).first, then_reads=True)


SENDS_LITTLE = Stranger(
    b"POST /admin/login/ HTTP/1.1\r\nhost: localhost\r\n"
    b"content-type: multipart/form-data; boundary=x\r\ncontent-length: 4000000\r\n\r\n"
    + b"x"
    * 300_000,
    then_sends=True,
)
KINDS = {
    "ask twice for 1.6 MB and read nothing": reads_nothing(_BUNDLE),
    "ask twice for 1.6 MB and read two bytes a second": reads_little(_BUNDLE),
    "announce 4 MB and send two bytes a second": SENDS_LITTLE,
}


class Strangers:
    """A process that holds `count` sockets open.

    A socket that is closed or refused connects again, as soon as a refusal allows it.
    """

    def __init__(self, port: int, count: int, kinds: Sequence[Stranger]) -> None:
        context = multiprocessing.get_context("spawn")
        self._held = context.Event()
        self._process = context.Process(
            target=_hold, args=(port, count, kinds, self._held), daemon=True
        )

    def __enter__(self) -> Self:
        self._process.start()
        if not self._held.wait(120):
            self._process.kill()
            raise TimeoutError("not all sockets could be opened")
        return self

    def __exit__(self, *error: object) -> None:
        self._process.kill()
        self._process.join()


def _hold(port: int, count: int, kinds: Sequence[Stranger], held: Event) -> None:
    asyncio.run(_hold_all(port, count, kinds, held))


async def _hold_all(
    port: int, count: int, kinds: Sequence[Stranger], held: Event
) -> None:
    opened = 0

    def count_one() -> None:
        nonlocal opened
        opened += 1
        if opened == count:
            held.set()

    async with asyncio.TaskGroup() as group:
        for number in range(count):
            kind = kinds[number % len(kinds)]
            group.create_task(_hold_one(port, kind, count_one))


async def _hold_one(port: int, kind: Stranger, opened: Callable[[], None]) -> None:
    loop = asyncio.get_running_loop()
    while True:
        with socket.socket() as end, contextlib.suppress(OSError):
            # With small buffers, more of the answer waits at the server.
            end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            end.setblocking(False)
            end.bind((ADDRESS, 0))
            await loop.sock_connect(end, ("127.0.0.1", port))
            opened()
            await loop.sock_sendall(end, kind.first)
            # A stranger that never reads only learns from this that it was cut off.
            while end.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1) == _OPEN:
                await asyncio.sleep(_EVERY_S)
                if kind.then_sends:
                    await loop.sock_sendall(end, b"x")
                elif kind.then_reads and not await loop.sock_recv(end, 1):
                    break
        await asyncio.sleep(random.uniform(0.5, 1.5) * _AGAIN_S)


@dataclass(frozen=True, slots=True)
class Asked:
    """The requests that one client repeats; `path` names them in the report."""

    path: str
    # Sent in turns.
    headers: Sequence[Mapping[str, str]]
    body: bytes | None = None


class Clients:
    """Clients that repeat each of `asked` in its own thread; `took_s` is by path."""

    def __init__(self, port: int, asked: Sequence[Asked]) -> None:
        self._port = port
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(it,)) for it in asked]
        self.took_s: dict[str, list[float]] = {it.path: [] for it in asked}
        # Answers other than 200.
        self.failures: list[str] = []

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    def p99_ms(self) -> dict[str, float]:
        return {
            path: sorted(took_s)[len(took_s) * 99 // 100] * 1000
            for path, took_s in self.took_s.items()
        }

    def _ask(self, asked: Asked) -> None:
        method = "GET" if asked.body is None else "POST"
        headers = itertools.cycle(asked.headers)
        pause_s = _LOOKING_S if asked.body is None else _PAUSE_S
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)
        while not self._stopping.wait(pause_s):
            began = time.monotonic()
            try:
                connection.request(method, asked.path, asked.body, next(headers))
                answer = connection.getresponse()
                said = answer.read()
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                self.failures.append(f"{asked.path}: {error!r}")
                continue
            self.took_s[asked.path].append(time.monotonic() - began)
            if answer.status != 200:
                self.failures.append(f"{asked.path}: {answer.status} {said[:200]!r}")
        connection.close()


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.strangers", description=__doc__
    )
    parser.add_argument("--sockets", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=65, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    WORK.mkdir(exist_ok=True)
    print(f"{platform.machine()}, {os.cpu_count()} cores", flush=True)
    with modelyard.running(WORK / "home", WORK / "strangers.log") as ours:
        asked = _asked(ours)
        failures: list[str] = []
        measure = functools.partial(_measure, ours, asked, failures)
        measure(10)
        rounds = [
            _round(measure, arguments.sockets, arguments.seconds)
            for _ in range(arguments.rounds)
        ]
        leases = ours.manage("shell", "-c", _COUNT_LEASES).splitlines()[-1]
        refused = _lease_failures(httpx.get(ours.demo["metrics_url"]).text)
    worst = _report(rounds)
    print(
        f"\nworst ratio {worst:.2f}; {len(failures)} failed {failures[:3]}; "
        f"{leases} leases, {refused:.0f} refused"
    )
    return int(worst > 2 or bool(failures) or refused > 0)


# The 99th percentiles by path: before, beside and after each kind of strangers.
_Round = dict[str, tuple[dict[str, float], dict[str, float], dict[str, float]]]


def _round(
    measure: Callable[..., dict[str, float]], sockets: int, seconds: float
) -> _Round:
    found: _Round = {}
    before = measure(seconds)
    for kind, stranger in KINDS.items():
        with Strangers(modelyard.PORT, sockets, [stranger]):
            beside = measure(seconds, kind)
        after = measure(seconds)
        found[kind] = before, beside, after
        before = after
    return found


def _measure(
    ours: modelyard.Running,
    asked: Sequence[Asked],
    failures: list[str],
    seconds: float,
    kind: str = "nobody",
) -> dict[str, float]:
    began = _processor_s(ours)
    with Clients(modelyard.PORT, asked) as clients:
        time.sleep(seconds)
    used = _processor_s(ours) - began
    p99_ms = clients.p99_ms()
    print(
        f"load {os.getloadavg()[0]:.0f}, beside {kind}: ",
        *(
            f"{path} {p99_ms[path]:.0f} ms of {len(took_s)},"
            for path, took_s in clients.took_s.items()
        ),
        f"gateways and site {used / seconds:.0%} of a core",
        flush=True,
    )
    failures += clients.failures
    return p99_ms


def _processor_s(ours: modelyard.Running) -> float:
    """Return the processor time that gateways and sites have used so far."""
    total_s = 0.0
    for process in ours.process.children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if {"inference.gateway", "config.wsgi:application"} & {*process.cmdline()}:
                times = process.cpu_times()
                total_s += times.user + times.system
    return total_s


def _report(rounds: Sequence[_Round]) -> float:
    """Print the medians; return the largest ratio to the mean of before and after."""
    worst = 0.0
    for kind in KINDS:
        print(f"\n{kind}")
        for path in rounds[0][kind][0]:
            before, beside, after = (
                statistics.median(each[kind][phase][path] for each in rounds)
                for phase in range(3)
            )
            ratio = beside / ((before + after) / 2)
            worst = max(worst, ratio)
            print(
                f"  {path:<40} {before:6.0f} ms before, {beside:6.0f} beside, "
                f"{after:6.0f} after: {ratio:.2f}"
            )
    return worst


def _asked(ours: modelyard.Running) -> list[Asked]:
    """People who read pages, signed in or not, and callers with quotas."""
    customer = ours.signed_in("/portal/sign-in/", "customer")
    portal = httpx.get(f"{ours.demo['base_url']}/portal/", headers=customer)
    tokens = json.loads(ours.manage("shell", "-c", _MAKE_KEYS).splitlines()[-1])
    target = ours.target(1)
    path, body = urlsplit(target.url).path, json.dumps(target.body).encode()
    json_with_key = [
        {"Content-Type": "application/json", "Authorization": f"Bearer {token}"}
        for token in tokens
    ]
    return [
        Asked("/docs/", [{}]),
        Asked(portal.headers["location"], [customer]),
        Asked("/admin/", [ours.signed_in("/admin/login/", "admin")]),
        *(Asked(path, json_with_key[n::4], body) for n in range(4)),
    ]


def _lease_failures(metrics: str) -> float:
    found = re.findall(r"^modelyard_lease_failures_total.* (\S+)$", metrics, re.M)
    return sum(map(float, found))


if __name__ == "__main__":
    sys.exit(main())
