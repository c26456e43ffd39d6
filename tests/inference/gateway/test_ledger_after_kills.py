"""Each answer that a client gets is one usage event, even if gateways are killed."""

import http.client
import itertools
import threading
import time

import pytest
from django.utils import timezone

from accounts.metering import spool
from accounts.models import Usage
from accounts.usage import reading, spans
from benchmarks import data_plane
from inference.controller import ledger
from tests.factories import CustomerFactory

pytestmark = [pytest.mark.processes, pytest.mark.django_db]

_CLIENTS = 8
_KILLS = 3
_LIFE_S = 0.5


class Client(threading.Thread):
    """Make calls one after another, each with its own id, and keep the answers."""

    def __init__(self, plane, name, stopped):
        super().__init__(daemon=True)
        self._plane, self._name, self._stopped = plane, name, stopped
        self.answered = set()

    def run(self):
        connection = http.client.HTTPConnection(
            "127.0.0.1", self._plane.port, timeout=30
        )
        for number in itertools.count():
            if self._stopped.is_set():
                break
            request_id = f"{self._name}-{number}"
            try:
                connection.request(
                    "POST",
                    data_plane.PATH,
                    data_plane.BODY,
                    {
                        "Authorization": f"Bearer {self._plane.key.token}",
                        "X-Request-ID": request_id,
                    },
                )
                with connection.getresponse() as response:
                    response.read()
            except (OSError, http.client.HTTPException):
                # The next request opens a new connection.
                connection.close()
                time.sleep(0.02)
                continue
            if response.status == 200:
                self.answered.add(request_id)
        connection.close()


def live(clients):
    """Wait until each client has got some answers, and some time more."""
    enough = [len(client.answered) + 2 for client in clients]
    deadline = time.monotonic() + 60
    time.sleep(_LIFE_S)
    while any(
        len(client.answered) < least
        for client, least in zip(clients, enough, strict=True)
    ):
        assert time.monotonic() < deadline, "no answers"
        time.sleep(0.02)


def test_each_answer_has_one_event_after_gateways_are_killed(tmp_path):
    customer = CustomerFactory(pk=1)
    stopped = threading.Event()
    with data_plane.running(tmp_path / "home", LOG_LEVEL="ERROR") as plane:
        clients = [Client(plane, f"c{number}", stopped) for number in range(_CLIENTS)]
        for client in clients:
            client.start()
        for _ in range(_KILLS):
            live(clients)
            gateway = plane.processes["inference.gateway"]
            gateway.kill()
            gateway.wait()
            # Events ingested before a restart must not be counted again.
            ledger.ingest(plane.home.spool, now=timezone.now(), budget_s=60)
            plane.start_gateway()
            plane.wait_listening()
        live(clients)
        stopped.set()
        for client in clients:
            client.join(60)
        plane.processes["inference.gateway"].kill()
        plane.processes["inference.gateway"].wait()
        spooled = [
            event.request_id
            for path in plane.home.spool.glob(f"*{spool.SUFFIX}")
            for event, _ in spool.read_events(path, 0)
            if event.status == 200
        ]
        for _ in range(3):
            ledger.ingest(plane.home.spool, now=timezone.now(), budget_s=60)

    answered = set().union(*(client.answered for client in clients))
    assert len(spooled) == len(set(spooled))
    assert answered <= set(spooled)
    assert len(spooled) - len(answered) <= _CLIENTS * (_KILLS + 1)
    counted = reading.totals(
        spans.of_minutes(Usage.objects.filter(customer=customer, status=200))
    )
    assert counted["requests"] == counted["charged_requests"] == len(spooled)
