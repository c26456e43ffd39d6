"""A whole gateway inside one test, with an engine and a site that do as told."""

import asyncio
import json
from collections import Counter

import httpx
import numpy as np

from accounts import key_format
from accounts.limits import Limits, Quota, Rate
from inference.engine.client import Prediction, Tensor
from inference.engine.errors import EngineError, EngineErrorCode
from inference.engine.messages import EngineStatus, VersionKey, VersionStatus
from inference.engine.signature import Column, Layout, Signature, Task
from inference.gateway.app import GatewayApp
from inference.gateway.clients import SlowBodies
from inference.gateway.engines import Engines
from inference.gateway.leases import LeaseClient
from inference.gateway.operator_app import OperatorApp
from inference.gateway.recorder import Recorder
from inference.gateway.relay import Relay
from inference.metrics import Metrics
from inference.prediction import PredictionPlan
from inference.snapshot import (
    AccessCustomer,
    AccessKey,
    CallableModel,
    CallableVersion,
    EngineAddress,
    Snapshot,
)
from inference.spool import SpoolWriter, read_events
from inference.tables import Tables
from registry.routing import Variant
from tests.fakes import ManualClock

KEY = key_format.generate("live")
PREDICT = "/api/v1/models/m/predict"
GOOD = {"instances": [{"x": 1.5}]}
SIGNATURE = Signature(
    layout=Layout.MATRIX,
    columns=(Column(name="x"),),
    shape=(1,),
    task=Task.REGRESSION,
)


def published(*, limits=None, engines=("cpu",)):
    return Snapshot(
        sequence=1,
        published_at=1.0,
        models=(
            CallableModel(
                name="m",
                versions=(CallableVersion(version=1, signature=SIGNATURE),),
                variants=(Variant(version=1, role="default", weight_percent=100),),
                engines=engines,
                routed=True,
            ),
        ),
        keys=(
            AccessKey(
                key_id=KEY.key_id,
                digest=KEY.digest,
                customer_id=7,
                scopes=("predict",),
            ),
        ),
        customers=(
            AccessCustomer(
                customer_id=7,
                limits=limits or Limits(plan="p", rates=(Rate("burst", 1000, 60),)),
            ),
        ),
        engines=tuple(EngineAddress(name=name, address=name) for name in engines),
    )


def one_at_a_time(*quotas):
    return Limits(plan="p", rates=(), quotas=quotas, max_concurrency=1)


DAY_OF_ONE = Quota("day", "requests", 1)


class FakeEngine:
    """Doubles its input. `failure` is raised instead if there is one."""

    def __init__(self, name="cpu"):
        self.name = name
        self.failure = None
        self.calls = 0
        self.state = "ready"
        self.hold = None

    async def predict(self, key, tensors, *, timeout_s, max_batch_rows=0):
        self.calls += 1
        if self.hold is not None:
            await self.hold.wait()
        if self.failure is not None:
            raise self.failure
        doubled = np.asarray(tensors[0].data) * 2
        return Prediction((Tensor("output", doubled),), 1, 2, len(doubled))

    async def status(self):
        if self.state == "gone":
            raise EngineError(EngineErrorCode.CONNECTION_LOST, "gone")
        version = VersionStatus(key=VersionKey("m", 1), state=self.state)
        return EngineStatus(
            id=1,
            device=self.name,
            pid=1,
            memory_bytes=1,
            versions=(version,),
            counters={},
        )


class FakeSite(httpx.AsyncBaseTransport):
    """Grants leases, echoes the rest. Raises `failure` if there is one."""

    def __init__(self):
        self.failure = None
        self.requests = []
        self.bodies = []
        self.granted = 1000
        self.answer = httpx.Response(200, json={"site": True})

    async def handle_async_request(self, request):
        self.requests.append(request)
        body = await request.aread()
        self.bodies.append(body)
        if self.failure is not None:
            raise self.failure
        if request.url.path == "/internal/leases":
            units = min(json.loads(body)["units"], self.granted)
            self.granted -= units
            return httpx.Response(200, json={"units": units, "remaining": self.granted})
        if request.url.path == "/internal/leases/release":
            return httpx.Response(200, json={"released": 1})
        return self.answer

    def paths(self):
        return Counter(request.url.path for request in self.requests)


class Plant:
    """Must be made inside a running loop."""

    def __init__(
        self,
        folder,
        *,
        limits=None,
        engines=("cpu",),
        max_upload_bytes=1000,
        **spool,
    ):
        self.clock = ManualClock(1_000_000.0)
        self.site = FakeSite()
        self.tables = Tables(published(limits=limits, engines=engines))
        self.made = {}
        self.engines = Engines(self._make_engine)
        self.engines.replace(self.tables.engines)
        self.engine = self.made[engines[0]]
        self.plan = PredictionPlan(self.tables, boot_id="boot", clock=self.clock)
        self.folder = folder
        self.writer = SpoolWriter(folder, "boot", **spool)
        self.recorder = Recorder(self.writer)
        self.metrics = Metrics()
        self.bodies = SlowBodies(self.clock)
        self.leases = LeaseClient(holder="boot", clock=self.clock, transport=self.site)
        self.app = GatewayApp(
            plan=self.plan,
            engines=self.engines,
            leases=self.leases,
            recorder=self.recorder,
            metrics=self.metrics,
            relay=Relay(
                self.site,
                self.bodies,
                max_bytes=max_upload_bytes,
                idle_timeout_s=5,
                site_timeout_s=5,
                clock=self.clock,
            ),
            bodies=self.bodies,
            body_timeout_s=5,
            clock=self.clock,
        )
        self.operator_app = OperatorApp(
            plan=self.plan,
            engines=self.engines,
            metrics=self.metrics,
            recorder=self.recorder,
        )

    def _make_engine(self, address):
        self.made[address] = FakeEngine(address)
        return self.made[address]

    async def ask(
        self, path=PREDICT, content=None, *, method="POST", app=None, **given
    ):
        headers = {"authorization": f"Bearer {KEY.token}"} | given.pop("headers", {})
        if content is None and method == "POST":
            content = json.dumps(GOOD).encode()
        transport = httpx.ASGITransport(app or self.app)
        async with httpx.AsyncClient(
            transport=transport, base_url="http://public"
        ) as client:
            return await client.request(
                method,
                f"http://public{path}",
                content=content,
                headers=headers,
                **given,
            )

    def start(self, messages, *, path=PREDICT, headers=(), on_send=None):
        """Run the application on scripted messages; gives the task and what it sends.

        After the last message the client stays silent. A queue is read as it fills.
        """
        waiting = messages if isinstance(messages, asyncio.Queue) else list(messages)
        sent = []

        async def receive():
            if isinstance(waiting, asyncio.Queue):
                return await waiting.get()
            if not waiting:
                await asyncio.Event().wait()
            return waiting.pop(0)

        async def send(message):
            sent.append(message)
            if on_send is not None:
                on_send()

        scope = {
            "type": "http",
            "method": "POST",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "scheme": "http",
            "client": ("10.0.0.9", 1),
            "headers": [
                (b"authorization", b"Bearer " + KEY.token.encode()),
                (b"host", b"public"),
                *headers,
            ],
        }
        return asyncio.create_task(self.app(scope, receive, send)), sent, waiting

    def events(self):
        return [
            event
            for path in sorted(self.folder.glob("*.spool"))
            for event, _ in read_events(path)
        ]
