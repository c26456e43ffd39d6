"""What changes of keys cost predictions: `python -m benchmarks.changes`.

One gateway and one engine serve a model that takes no time. A database holds 100,000
keys, of which another is revoked and made each second. Rounds with and without changes
take turns. Printed are requests per second and latencies of both, how long a change
takes to be published, and what the publisher needs of a core.
"""

import argparse
import contextlib
import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks import load
from benchmarks.data_plane import BODY, MODEL, PATH, ROOT, DataPlane
from benchmarks.load import Measured, Target

_CONNECTIONS = 16
_ROUNDS = 5
_PER_CUSTOMER = 20
# As `DataPlane` has it.
_SIGNATURE = {
    "inputs": [
        {"type": "tensor", "tensor-spec": {"dtype": "float32", "shape": [-1, 1]}}
    ],
    "outputs": [{"type": "tensor", "tensor-spec": {"dtype": "float32", "shape": [-1]}}],
}
_METADATA = {"task": "regression", "columns": ["x"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keys", type=int, default=100_000)
    parser.add_argument("--seconds", type=int, default=8, help="of each round")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        plane = DataPlane(Path(folder))
        os.environ |= {
            "DJANGO_SETTINGS_MODULE": "config.settings",
            "MODELYARD_HOME": folder,
            "LOG_LEVEL": "WARNING",
        }
        publish = _fill(plane, arguments.keys)
        try:
            publish()
            size = plane.home.snapshot.stat().st_size / 1e6
            print(f"{arguments.keys:,} keys, a snapshot of {size:.1f} MB")
            plane.start_engine()
            plane.start_gateway()
            plane.wait_listening()
            plane.load(1, row_s=0)
            _measure(plane, publish, arguments.seconds)
        finally:
            plane.stop()


def _measure(plane: DataPlane, publish: Callable[[], None], seconds: int) -> None:
    target = Target(
        f"http://127.0.0.1:{plane.port}{PATH}",
        BODY,
        {"Authorization": f"Bearer {plane.key.token}"},
    )
    quiet, busy = [], []
    took_s: list[float] = []
    processor_s: list[float] = []
    for _ in range(_ROUNDS):
        quiet.append(load.run(target, connections=_CONNECTIONS, seconds=seconds))
        with _changing(publish, took_s, processor_s):
            busy.append(load.run(target, connections=_CONNECTIONS, seconds=seconds))
    for name, rounds in (("without changes", quiet), ("one a second", busy)):
        print(f"{name}: {_line(rounds)}")
    ratio = _median(busy, "p99_ms") / _median(quiet, "p99_ms")
    print(f"p99 with changes is {ratio:.2f} times that without")
    print(
        f"a change is published in {statistics.median(took_s) * 1000:.0f} ms"
        f" ({max(took_s) * 1000:.0f} at most), of which"
        f" {statistics.median(processor_s) * 1000:.0f} ms of a core"
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
    publish: Callable[[], None], took_s: list[float], processor_s: list[float]
) -> Iterator[None]:
    """Revoke a key and publish that, once a second."""
    from django.db import connection

    from accounts import api_keys
    from accounts.models import ApiKey

    stop = threading.Event()

    def change() -> None:
        keys = iter(ApiKey.objects.filter(revoked_at=None).order_by("pk")[:1000])
        while not stop.wait(1.0):
            api_keys.revoke(next(keys))
            began, processor = time.perf_counter(), time.thread_time()
            publish()
            took_s.append(time.perf_counter() - began)
            processor_s.append(time.thread_time() - processor)
        connection.close()

    changing = threading.Thread(target=change)
    changing.start()
    try:
        yield
    finally:
        stop.set()
        changing.join()


def _fill(plane: DataPlane, keys: int) -> Callable[[], None]:
    """Fill a database with keys and the model; return what publishes its changes."""
    # Django can be used only after its settings are in the environment.
    sys.path.insert(0, str(ROOT / "platform"))
    import django

    django.setup()
    from django.core.management import call_command
    from django.utils import timezone

    from accounts.models import ApiKey, Plan
    from benchmarks import rows
    from inference import publishing
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
    publisher = publishing.Publisher(plane.home.snapshot)
    publishing.mark_changed()
    return lambda: publisher.publish(now=timezone.now()) and None


if __name__ == "__main__":
    main()
