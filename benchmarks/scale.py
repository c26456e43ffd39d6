"""Measure pages and commands with a large database: `python -m benchmarks.scale`.

It fills an empty database (SQLite in a temporary folder, or PostgreSQL by DATABASE_URL)
with 1,000 models of 20 versions, 5,000 customers, 20,000 keys, 1.7 million minutes of
usage and 20,000 finished jobs. It prints the time, size and number of queries of each
page, and the time of each command. Each page is loaded three times; the fastest counts.
"Of a core" is the processor time of the page's process, and of PostgreSQL's process for
it on this machine: the rest of the time is waiting, for example for a busy core.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

PAGE_MS = 300
SYNC_S = 10.0
RECONCILE_S = 1.0
_TRIES = 3


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true", help="fill only a little")
    parser.add_argument("--only", default="", help="pages whose path contains this")
    parser.add_argument("--home", help="a folder that was filled before, or to keep")
    parser.add_argument("--queries", action="store_true", help="show slow queries")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        home = arguments.home or folder
        os.environ |= {
            "DJANGO_SETTINGS_MODULE": "config.settings",
            "MODELYARD_HOME": home,
            "LOG_LEVEL": "ERROR",
        }
        return _run(arguments)


def _run(arguments: argparse.Namespace) -> int:
    # Django can be used only after its settings are in the environment.
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "platform"))
    import django

    django.setup()
    from django.conf import settings
    from django.core.management import call_command
    from django.db import connection

    from accounts.models import Customer
    from benchmarks import rows

    # The processor time of a query on several cores would be counted only for one.
    os.environ["PGOPTIONS"] = "-c max_parallel_workers_per_gather=0"
    settings.HOME.prepare()
    settings.ALLOWED_HOSTS = ["testserver"]
    call_command("migrate", verbosity=0)
    if not Customer.objects.exists():
        began = time.perf_counter()
        rows.fill(rows.SMALL if arguments.small else rows.LARGE)
        took_s = time.perf_counter() - began
        print(f"filled {connection.vendor} in {took_s:.0f} s")
    slow = _measure_commands() if not arguments.only else 0
    client = client_of_everything()
    for page in pages():
        if arguments.only in page:
            slow += _measure_page(client, page, queries=arguments.queries)
    print(f"{slow} beyond the bound")
    return bool(slow)


def pages() -> list[str]:
    """Return the paths of the admin's lists and forms, and of a customer's pages."""
    from django.contrib import admin
    from django.urls import reverse

    from accounts.models import Customer, Refusal

    found = ["/admin/", "/docs/", "/api/schema/", "/api/v1/models"]
    for model, registered in sorted(
        admin.site._registry.items(), key=lambda item: item[0]._meta.label
    ):
        name = f"admin:{model._meta.app_label}_{model._meta.model_name}"
        found.append(reverse(f"{name}_changelist"))
        if registered.search_fields:
            found.append(reverse(f"{name}_changelist") + "?q=model-0001")
        row = model._default_manager.order_by("pk").first()
        if row is not None:
            found.append(reverse(f"{name}_change", args=(row.pk,)))
    customer = Customer.objects.order_by("pk")[0]
    refusal = Refusal.objects.order_by("pk")[0]
    own = f"/portal/{customer.pk}/"
    changelist = reverse("admin:accounts_usage_changelist")
    found += [
        reverse("admin:accounts_apikey_add") + f"?customer={customer.pk}",
        reverse("admin:accounts_customer_changelist") + "?q=Customer+00042",
        reverse("admin:accounts_apikey_changelist") + "?state__exact=active",
        f"{changelist}?model=model-0001",
        f"{changelist}?customer__id__exact={customer.pk}",
        f"/admin/search/?s={refusal.request_id}",
        "/admin/search/?s=model-0042",
        *(own, own + "keys/", own + "refusals/", own + "try/"),
        "/api/v1/usage?group_by=model",
    ]
    return found


def client_of_everything() -> Any:
    """Return a client signed in as a person who may see every page and the portal."""
    from django.contrib.auth.models import User
    from django.test import Client

    from accounts.admission.limits import SCOPES
    from accounts.customers import api_keys
    from accounts.models import Customer

    person, _ = User.objects.get_or_create(
        username="scale", defaults={"is_staff": True, "is_superuser": True}
    )
    customer = Customer.objects.order_by("pk")[0]
    customer.members.add(person)
    key = api_keys.issue(customer, name="scale", scopes=list(SCOPES))
    client = Client(headers={"Authorization": f"Bearer {key.token}"})
    client.force_login(person)
    return client


def _measure_page(client: Any, page: str, *, queries: bool) -> int:
    from django.db import connection
    from django.test.utils import CaptureQueriesContext

    took_ms, processor_ms = [], []
    for _ in range(_TRIES):
        captured = CaptureQueriesContext(connection)
        with captured:
            began, processor_s = time.perf_counter(), _processor_s()
            response = client.get(page)
            size = len(
                b"".join(response.streaming_content)
                if response.streaming
                else response.content
            )
            took_ms.append((time.perf_counter() - began) * 1000)
            processor_ms.append((_processor_s() - processor_s) * 1000)
    assert response.status_code < 400, (page, response.status_code)
    beyond = min(took_ms) > PAGE_MS
    print(
        f"{'!' if beyond else ' '} {min(took_ms):7.0f} ms"
        f" ({min(processor_ms):5.0f} of a core) {size / 1000:8.0f} kB"
        f" {len(captured):4} queries {response.status_code} {page}",
        flush=True,
    )
    if queries:
        for query in sorted(captured, key=lambda one: -float(one["time"]))[:3]:
            print(f"            {query['time']} s {query['sql'][:600]}")
    return beyond


def _processor_s() -> float:
    """Return the processor time of this process, and of PostgreSQL's process for it."""
    from django.db import connection

    used_s = time.process_time()
    if connection.vendor == "postgresql":
        connection.ensure_connection()
        process = connection.connection.info.backend_pid
        statistics = Path(f"/proc/{process}/schedstat")
        if statistics.exists():
            used_s += int(statistics.read_text().split()[0]) / 1e9
    return used_s


def _measure_commands() -> int:
    beyond = 0
    for name, bound_s, action in _commands():
        took_s = _timed(action)
        beyond += took_s > bound_s
        print(
            f"{'!' if took_s > bound_s else ' '} {took_s * 1000:7.0f} ms {name}",
            flush=True,
        )
    return beyond


def _commands() -> Iterable[tuple[str, float, Callable[[], object]]]:
    from django.conf import settings
    from django.utils import timezone

    from accounts.customers import api_keys
    from accounts.models import ApiKey
    from inference.controller import publishing
    from inference.controller.engine_links import EngineView
    from inference.controller.reconciling import Reconciler
    from inference.engine.wire.messages import EngineStatus, VersionKey, VersionStatus
    from inference.models import LoadedVersion
    from inference.placement import report_file
    from inference.placement.processes import HostReport

    publisher = publishing.Publisher(settings.HOME.snapshot)

    def publish() -> None:
        publisher.publish(now=timezone.now())

    class Link:
        view = EngineView(
            name="cpu",
            address="/run/cpu",
            status=EngineStatus(1, "cpu", 1, 0, (), {}),
            versions={
                VersionKey(model, version): VersionStatus(
                    key=VersionKey(model, version), state="ready"
                )
                for model, version in LoadedVersion.objects.values_list(
                    "model", "version"
                )
            },
        )

        def load(self, *_: object) -> None: ...

        unload = load

    report = HostReport(host="bench", at=0.0, devices=("cpu",))
    report_file.write(settings.HOME.host_report, report)
    reconciler = Reconciler(settings.HOME)
    links: Any = {"cpu": Link()}
    publishing.mark_changed()
    yield "publish everything", 10.0, publish
    yield "reconcile", RECONCILE_S, lambda: reconciler.reconcile(links, now_s=0.0)
    yield "reconcile again", RECONCILE_S, lambda: reconciler.reconcile(links, now_s=1.0)
    api_keys.revoke(ApiKey.objects.filter(revoked_at=None)[0])
    yield "publish a revoked key", 1.0, publish
    publishing.mark_changed(publishing.Kind.MODEL, ["model-0001"])
    yield "publish a route", 1.0, publish
    publisher.close()
    yield from _syncs()


def _syncs() -> Iterable[tuple[str, float, Callable[[], object]]]:
    from registry import sync
    from registry.models import RegisteredModel
    from tests.fakes import FakeMlflow

    mlflow = FakeMlflow()
    for model in RegisteredModel.objects.prefetch_related("versions"):
        versions = sorted(model.versions.all(), key=lambda row: row.version)
        mlflow.add(
            model.name,
            *(version.version for version in versions),
            aliases={"champion": versions[-1].version},
            registered_at=versions[0].registered_at,
            description=model.description,
        )
    yield "sync, first", 600.0, lambda: sync.synchronise(mlflow)
    yield "sync when nothing changed", SYNC_S, lambda: sync.synchronise(mlflow)


def _timed(action: Callable[[], object]) -> float:
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


if __name__ == "__main__":
    sys.exit(main())
