"""Run real processes on the test's own database, as on one machine.

Gateways, the site and the controller are started as the supervisor starts them. The
engine is a thread of the test, with a model that doubles its input.
"""

import asyncio
import contextlib
import os
import re
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path

import httpx
from django.conf import settings
from django.contrib.auth.hashers import make_password
from django.contrib.auth.models import Group
from django.db import connection
from django.test import override_settings

from accounts.metering import spool
from accounts.models import SpoolSegment, Usage
from config.groups import ensure_groups
from config.processes.specs import process_specs
from inference.engine.server import EngineServer
from inference.placement import report_file
from inference.placement.processes import HostReport, ProcessReport
from tests.factories import UserFactory
from tests.factories_registry import ModelVersionFactory, RouteFactory
from tests.inference.engine.fakes import FakeRunner, fake_engine, ready
from tests.inference.gateway.test_several_processes import Gateways
from tests.waiting import wait_until

ROOT = Path(__file__).resolve().parents[1]
MODEL = "doubler"
PREDICT = f"/api/v1/models/{MODEL}/predict"
BODY = b'{"instances": [{"width": 1.0, "height": 2.0}]}'
PASSWORD = "correct horse battery staple"


def database_url(*, port=None):
    """Return the URL of the test's database; `port` replaces that of the server."""
    facts = connection.settings_dict
    if connection.vendor == "sqlite":
        return f"sqlite:///{facts['NAME']}"
    host = "127.0.0.1" if port else facts["HOST"]
    login = facts["USER"] + (f":{facts['PASSWORD']}" if facts["PASSWORD"] else "")
    return f"postgres://{login}@{host}:{port or facts['PORT']}/{facts['NAME']}"


@contextlib.contextmanager
def engine(home, *versions, runner=None, **options):
    """Serve an engine that has loaded these versions, in a thread with its own loop."""
    stop, started = asyncio.Event(), threading.Event()
    loops = []

    async def main():
        loops.append(asyncio.get_running_loop())
        served = fake_engine(home.root, runner or FakeRunner(), **options)
        server = EngineServer(served, home.engine_socket("cpu"), clock=served.clock)
        await server.start()
        for version in versions:
            served.load(version)
            await ready(served, version.key)
        started.set()
        await stop.wait()
        await server.stop(1)
        served.close()

    report_host(home)
    thread = threading.Thread(target=asyncio.run, args=(main(),))
    thread.start()
    assert started.wait(60)
    try:
        yield
    finally:
        loops[0].call_soon_threadsafe(stop.set)
        thread.join()


def report_host(home):
    """Write what a host with one engine would report."""
    process = ProcessReport(name="cpu", state="running", pid=os.getpid())
    report_file.write(
        home.host_report,
        HostReport(
            host=socket.gethostname(),
            at=time.time(),
            devices=("cpu",),
            processes=(process,),
        ),
    )


def site_answers(home):
    """Return whether the site answers; its sockets exist before it does."""
    return _answers(home.internal_socket) and _answers(home.site_socket)


def _answers(path):
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as asking:
        asking.settimeout(10)
        asking.connect(str(path))
        asking.sendall(b"GET /healthz HTTP/1.0\r\nhost: localhost\r\n\r\n")
        return asking.recv(12).endswith(b" 200")
    return False


class Machine:
    """The processes of `settings.HOME` by name; Django's can be killed.

    `site`, `internal` and `controller` are in `processes`, gateways in
    `gateways.processes`; `worker` and `beat` run once they are started.
    """

    def __init__(self, *, gateways, database=None, **environment):
        self.home = settings.HOME
        self._specs = {spec.name: spec for spec in process_specs()}
        self._environment = {
            "MODELYARD_HOME": str(self.home.root),
            "DATABASE_URL": database or database_url(),
            "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'platform'}",
            "LOG_LEVEL": "CRITICAL",
            **environment,
        }
        self.processes = {}
        self.gateways = Gateways(self.home, gateways, **environment)
        self.url = self.gateways.url

    def start(self, name):
        spec = self._specs[name]
        self.processes[name] = subprocess.Popen(
            spec.command,
            cwd=ROOT,
            env={
                **os.environ,
                **spec.environment,
                **self._environment,
                "MODELYARD_PROCESS": name,
            },
            start_new_session=True,
        )

    def kill(self, name):
        """Kill a process and all that it started, whatever they are doing."""
        process = self.processes.pop(name)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def stop(self):
        self.gateways.kill()
        for name in list(self.processes):
            self.kill(name)

    def answers(self, token, *, status=200):
        """Return whether every gateway answers a prediction with the status."""
        headers = {"authorization": f"Bearer {token}"}
        gateways = set()
        # Each call has a connection of its own, which the kernel gives to any gateway.
        for _ in range(20 * len(self.gateways.names)):
            try:
                answer = httpx.post(
                    f"{self.url}{PREDICT}",
                    content=BODY,
                    headers=headers,
                    timeout=10,
                    verify=False,
                )
            except httpx.TransportError:
                return False
            if answer.status_code != status:
                return False
            # Ids of requests begin with the gateway's.
            gateways.add(answer.headers["x-request-id"][:20])
            if len(gateways) == len(self.gateways.names):
                return True
        return False

    def spooled(self):
        """Return the request ids of all events on disk, by segment."""
        return {
            path.name: [event.request_id for event, _ in spool.read_events(path)]
            for path in self.home.spool.glob(f"*{spool.SUFFIX}")
        }

    def ingested(self):
        """Return whether every segment is read to its present end."""
        read = dict(SpoolSegment.objects.values_list("name", "ingested_bytes"))
        return all(
            read.get(path.name, 0) == path.stat().st_size
            for path in self.home.spool.glob(f"*{spool.SUFFIX}")
        )


@contextlib.contextmanager
def running(
    *,
    gateways=4,
    database=None,
    runner=None,
    runners=None,
    load_s=0.0,
    **environment,
):
    """Yield a machine that serves MODEL to all keys that exist by then.

    `runners` holds the runners of single versions; all others have `runner`.
    """
    version = ModelVersionFactory(registered_model__name=MODEL, version=1)
    RouteFactory(default_version=version)
    machine = Machine(gateways=gateways, database=database, **environment)
    try:
        with engine(machine.home, runner=runner, runners=runners, load_s=load_s):
            machine.start("internal")
            machine.start("site")
            machine.start("controller")
            machine.gateways.wait_until_up(machine.gateways.names)
            wait_until(lambda: site_answers(machine.home), what="the site")
            yield machine
            machine.stop()
    finally:
        machine.stop()


def account_manager():
    return staff("account managers")


def staff(group):
    """Make a user who can sign in to the admin of another process."""
    ensure_groups()
    hasher = "django.contrib.auth.hashers.PBKDF2PasswordHasher"
    with override_settings(PASSWORD_HASHERS=[hasher]):
        password = make_password(PASSWORD)
    person = UserFactory(is_staff=True)
    person.password = password
    person.save()
    person.groups.add(Group.objects.get(name=group))
    return person


class Admin:
    """An HTTP client with the session of a signed-in user."""

    def __init__(self, url, person):
        self._url = url
        self._person = person
        self._client = httpx.Client(base_url=url, timeout=30)

    def __enter__(self):
        with contextlib.ExitStack() as unless_signed_in:
            unless_signed_in.callback(self._client.close)
            answer = self.post(
                "/admin/login/",
                username=self._person.username,
                password=PASSWORD,
                next="/admin/",
            )
            assert answer.status_code == 302, answer.text[:500]
            unless_signed_in.pop_all()
        return self

    def __exit__(self, *error):
        self._client.close()

    def page(self, path):
        return self._client.get(path)

    def post(self, path, **fields):
        """Send the form of a page as a browser would."""
        page = self._client.get(path)
        token = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', page.text)
        assert token, f"{path}: {page.status_code} {page.text[:500]}"
        return self._client.post(
            path,
            data={"csrfmiddlewaretoken": token[1], **fields},
            headers={"referer": f"{self._url}{path}"},
        )


def counted_once(machine):
    """Check that each event on disk is counted once; return the ids of all events.

    A row of usage names its segment, so a duplicate cannot hide a loss in the sum.
    """
    spooled = machine.spooled()
    counts = dict.fromkeys(spooled, 0)
    for segment, requests in Usage.objects.values_list("segment", "requests"):
        counts[segment] += requests
    assert counts == {name: len(ids) for name, ids in spooled.items()}
    everything = [request_id for ids in spooled.values() for request_id in ids]
    assert len(everything) == len(set(everything))
    return set(everything)
