"""Measure how changes of keys slow predictions down: `python -m benchmarks.changes`.

One gateway and one engine serve a model that takes no time. A database holds 100,000
keys, and each second one of them is revoked. Rounds with and without changes take
turns. It prints requests per second and latencies of both; how long a revocation takes
to be published, and until the gateway refuses the key; the processor time of the
publisher, and of reading a whole snapshot. A small `--renew-after-bytes` makes the
publisher renew the file meanwhile: a revocation takes about 150 bytes.
"""

import argparse
import contextlib
import gc
import http.client
import itertools
import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import load
from benchmarks.data_plane import BODY, MODEL, PATH, ROOT, DataPlane
from benchmarks.load import Measured, Target
from inference.snapshot.snapshot_file import SnapshotReader
from inference.snapshot.tables import Tables

_CONNECTIONS = 16
_ROUNDS = 5
_PER_CUSTOMER = 20
_VICTIMS = 500
# As `DataPlane` has it.
_SIGNATURE = {
    "inputs": [
        {"type": "tensor", "tensor-spec": {"dtype": "float32", "shape": [-1, 1]}}
    ],
    "outputs": [{"type": "tensor", "tensor-spec": {"dtype": "float32", "shape": [-1]}}],
}
_METADATA = {"task": "regression", "columns": ["x"]}


@dataclass
class Changes:
    """The times that revocations took."""

    published_s: list[float] = field(default_factory=list)
    refused_s: list[float] = field(default_factory=list)
    processor_s: list[float] = field(default_factory=list)
    files: set[int] = field(default_factory=set)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keys", type=int, default=100_000)
    parser.add_argument("--seconds", type=int, default=8, help="of each round")
    parser.add_argument("--changes-per-s", type=float, default=1.0)
    parser.add_argument("--renew-after-bytes", type=int)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        plane = DataPlane(Path(folder))
        os.environ |= {
            "DJANGO_SETTINGS_MODULE": "config.settings",
            "MODELYARD_HOME": folder,
            "LOG_LEVEL": "WARNING",
        }
        victims = _fill(plane, arguments.keys)
        from inference.controller import publishing

        publisher = publishing.Publisher(
            plane.home.snapshot, renew_after_bytes=arguments.renew_after_bytes
        )
        publishing.mark_changed()
        try:
            _publish(publisher)
            size = plane.home.snapshot.stat().st_size / 1e6
            print(f"{arguments.keys:,} keys, a snapshot of {size:.1f} MB")
            _read_whole(plane.home.snapshot)
            plane.start_engine()
            plane.start_gateway()
            plane.wait_listening()
            plane.load(1, row_s=0)
            _measure(
                plane,
                lambda changes: _changing(
                    plane, publisher, victims, changes, 1 / arguments.changes_per_s
                ),
                arguments.seconds,
            )
        finally:
            plane.stop()


def _publish(publisher: Any) -> None:
    from django.utils import timezone

    publisher.publish(now=timezone.now())


def _read_whole(path: Path) -> None:
    """Print the processor time of reading a snapshot while another is in memory."""
    collections: list[float] = []

    def note(phase: str, _: object) -> None:
        collections.append(time.thread_time())

    tables = Tables()
    for part in SnapshotReader(path).parts():
        tables.take(part)
    gc.collect()
    gc.freeze()
    threshold = gc.get_threshold()
    # As in a gateway.
    gc.set_threshold(20_000)
    gc.callbacks.append(note)
    steps = [time.thread_time()]
    for part in SnapshotReader(path).parts():
        tables.take(part)
        steps.append(time.thread_time())
    gc.callbacks.remove(note)
    gc.set_threshold(*threshold)
    took = [later - sooner for sooner, later in itertools.pairwise(steps)]
    garbage = [
        end - begin
        for begin, end in zip(collections[::2], collections[1::2], strict=True)
    ]
    print(
        f"the whole is read in {sum(took) * 1000:.0f} ms of a core,"
        f" in {len(took)} steps of {statistics.median(took) * 1000:.2f} ms"
        f" ({max(took) * 1000:.1f} at most), with {len(garbage)} collections of garbage"
        f" ({max(garbage, default=0) * 1000:.1f} ms at most)"
    )


def _measure(
    plane: DataPlane,
    changing: "Callable[[Changes], contextlib.AbstractContextManager[None]]",
    seconds: int,
) -> None:
    target = Target(
        f"http://127.0.0.1:{plane.port}{PATH}",
        BODY,
        {"Authorization": f"Bearer {plane.key.token}"},
    )
    quiet: list[Measured] = []
    busy: list[Measured] = []
    changes = Changes()
    for number in range(_ROUNDS):
        # Take turns in going first.
        for rounds in (quiet, busy) if number % 2 else (busy, quiet):
            with changing(changes) if rounds is busy else contextlib.nullcontext():
                rounds.append(
                    load.run(target, connections=_CONNECTIONS, seconds=seconds)
                )
    for name, rounds in (("without changes", quiet), ("with changes", busy)):
        print(f"{name}: {_line(rounds)}")
    ratio = _median(busy, "p99_ms") / _median(quiet, "p99_ms")
    print(f"p99 with changes is {ratio:.2f} times that without")
    print(
        f"{len(changes.refused_s)} revocations: published in"
        f" {_times(changes.published_s)}, with"
        f" {statistics.median(changes.processor_s) * 1000:.0f} ms of a core; refused"
        f" after {_times(changes.refused_s)}; the file was renewed"
        f" {len(changes.files) - 1} times"
    )


def _times(took_s: list[float]) -> str:
    return (
        f"{statistics.median(took_s) * 1000:.0f} ms ({max(took_s) * 1000:.0f} at most)"
    )


def _line(rounds: list[Measured]) -> str:
    failed = sum(one.failures for one in rounds)
    return (
        f"{_median(rounds, 'requests_per_s'):,.0f} requests/s,"
        f" p50 {_median(rounds, 'p50_ms'):.2f} ms,"
        f" p99 {_median(rounds, 'p99_ms'):.2f} ms, {failed} failed"
    )


def _median(rounds: list[Measured], name: str) -> float:
    return statistics.median(getattr(one, name) for one in rounds)


@contextlib.contextmanager
def _changing(
    plane: DataPlane,
    publisher: Any,
    victims: "Iterator[Any]",
    changes: Changes,
    interval_s: float,
) -> Iterator[None]:
    """Revoke a key every `interval_s`, publish it, and wait until it is refused."""
    from django.db import connection

    from accounts.customers import api_keys

    stop = threading.Event()

    def change() -> None:
        gateway = http.client.HTTPConnection("127.0.0.1", plane.port)
        while not stop.wait(interval_s):
            issued = next(victims)
            api_keys.revoke(issued.key)
            began, processor = time.perf_counter(), time.thread_time()
            _publish(publisher)
            changes.published_s.append(time.perf_counter() - began)
            changes.processor_s.append(time.thread_time() - processor)
            while _status(gateway, issued.token) != 401:
                time.sleep(0.01)
            changes.refused_s.append(time.perf_counter() - began)
            changes.files.add(plane.home.snapshot.stat().st_ino)
        gateway.close()
        connection.close()

    changing = threading.Thread(target=change)
    changing.start()
    try:
        yield
    finally:
        stop.set()
        changing.join()


def _status(gateway: http.client.HTTPConnection, token: str) -> int:
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    gateway.request("POST", PATH, BODY, headers)
    answer = gateway.getresponse()
    answer.read()
    return answer.status


def _fill(plane: DataPlane, keys: int) -> "Iterator[Any]":
    """Fill a database with keys and the model; return keys to revoke."""
    # Django can be used only after its settings are in the environment.
    sys.path.insert(0, str(ROOT / "platform"))
    import django

    django.setup()
    from django.core.management import call_command

    from accounts.customers import api_keys
    from accounts.models import ApiKey, Customer, Plan
    from benchmarks import rows
    from inference.models import Engine, LoadedVersion, ServingRoute
    from registry.models import ModelVersion, RegisteredModel

    call_command("migrate", verbosity=0)
    rows.add_keys(keys, customers=keys // _PER_CUSTOMER)
    rows.add_models(1, 1)
    address = str(plane.home.engine_socket("cpu"))
    Engine.objects.update(address=address)
    for kind in (ServingRoute, LoadedVersion):
        kind.objects.update(model=MODEL)
    RegisteredModel.objects.update(name=MODEL)
    ModelVersion.objects.update(signature=_SIGNATURE, metadata=_METADATA)
    # Nothing is refused, and no site is asked for leases.
    Plan.objects.update(
        burst_requests=10**9, sustained_requests=10**9, daily_quota=None
    )
    # The one that calls is revoked last.
    ApiKey.objects.filter(pk=ApiKey.objects.latest("pk").pk).update(
        key_id=plane.key.key_id, digest=plane.key.digest.hex()
    )
    customer = Customer.objects.earliest("pk")
    return iter(
        [
            api_keys.issue(customer, name=f"victim {number}", scopes=["predict"])
            for number in range(_VICTIMS)
        ]
    )


if __name__ == "__main__":
    main()
