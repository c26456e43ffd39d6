"""A whole gateway inside one test, with an engine and a site that do as told."""

import asyncio
import contextlib
import functools
import json
import socket
from collections import Counter

import httpx
import msgspec
import numpy as np

from accounts.admission import key_format
from accounts.admission.admission import Admission
from accounts.admission.limits import Limits, Quota, Rate
from accounts.admission.networks import Networks
from accounts.metering.spool import SpoolWriter, read_events
from inference.engine.signatures.signature import Column, Layout, Signature, Task
from inference.engine.wire.errors import EngineError, EngineErrorCode
from inference.engine.wire.messages import (
    EngineStatus,
    OutputTensor,
    VersionKey,
    VersionStatus,
)
from inference.engine.wire.tensors import Prediction, Tensor
from inference.gateway.app import GatewayApp
from inference.gateway.bounds import Bytes, UploadSlots
from inference.gateway.driver.driver import GatewayDriver
from inference.gateway.driver.engines import Engines
from inference.gateway.driver.lease_client import LeaseClient
from inference.gateway.driver.recorder import Recorder
from inference.gateway.driver.upload_reader import InputFiles
from inference.gateway.http1.asgi import answered_by
from inference.gateway.http1.listener import Listener
from inference.gateway.metrics.calls import Metrics
from inference.gateway.operators.app import ControlApp, OperatorApp, Reporter
from inference.gateway.relay.buffers import Buffers
from inference.gateway.relay.clients import Clients, SlowBodies
from inference.gateway.relay.relay import Relay
from inference.prediction.plan import PredictionPlan
from inference.snapshot.contents import (
    AccessCustomer,
    AccessKey,
    CallableModel,
    CallableVersion,
    EngineAddress,
    Snapshot,
)
from inference.snapshot.tables import Tables
from registry.routing import Variant
from tests.fakes import ManualClock

KEY = key_format.generate("live")
# A key of another customer.
OTHER_KEY = key_format.generate("live")
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
                versions=(
                    CallableVersion(version=1, signature=SIGNATURE, engines=engines),
                ),
                variants=(Variant(version=1, role="default", weight_percent=100),),
                routed=True,
            ),
        ),
        keys=tuple(
            AccessKey(
                key_id=key.key_id,
                digest=key.digest,
                customer_id=customer_id,
                scopes=("predict",),
            )
            for key, customer_id in ((KEY, 7), (OTHER_KEY, 8))
        ),
        customers=tuple(
            AccessCustomer(
                customer_id=customer_id,
                limits=limits or Limits(plan="p", rates=(Rate("burst", 1000, 60),)),
            )
            for customer_id in (7, 8)
        ),
        engines=tuple(EngineAddress(name=name, address=name) for name in engines),
    )


def one_at_a_time(*quotas):
    return Limits(plan="p", rates=(), quotas=quotas, max_concurrency=1)


DAY_OF_ONE = Quota("day", "requests", 1)


class FakeEngine:
    """Double its input, or raise `failure` if there is one."""

    # Then the gateway calls `predict` and not `begin`.
    connected = False
    in_flight = 0

    def __init__(self, name="cpu"):
        self.name = name
        self.failure = None
        self.calls = 0
        self.state = "ready"
        self.hold = None
        # Streams: their chunks, how many chunks were taken, how many streams are open.
        self.chunks = ()
        self.given = self.streaming = 0

    async def reach(self):
        pass

    async def predict(self, call):
        self.calls += 1
        if self.hold is not None:
            await self.hold.wait()
        if self.failure is not None:
            raise self.failure
        doubled = np.asarray(call.tensors[0].data) * 2
        return Prediction((Tensor("output", doubled),), 1, 2, len(doubled))

    async def stream(self, call):
        """Yield `chunks`; raise an exception that is among them."""
        self.calls += 1
        self.streaming += 1
        try:
            for chunk in self.chunks:
                if isinstance(chunk, Exception):
                    raise chunk
                if isinstance(chunk, asyncio.Event):
                    await chunk.wait()
                    continue
                self.given += 1
                yield chunk
        finally:
            self.streaming -= 1

    async def status(self):
        if self.state == "gone":
            raise EngineError(EngineErrorCode.CONNECTION_LOST, "gone")
        outputs = (OutputTensor("output", "float32", (1,)),)
        version = VersionStatus(
            key=VersionKey("m", 1), state=self.state, outputs=outputs
        )
        return EngineStatus(
            id=1,
            device=self.name,
            pid=1,
            memory_bytes=1,
            versions=(version,),
            counters={},
        )


class FakeSite(httpx.AsyncBaseTransport):
    """Grant leases and echo other requests, or raise `failure` if there is one."""

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


def listener(application, clock, *, max_connections=1000):
    return Listener(
        application,
        header_timeout_s=10,
        idle_timeout_s=30,
        max_connections=max_connections,
        clock=clock,
    )


@contextlib.asynccontextmanager
async def listening(serving):
    """Let a listener listen; yield its port."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        server = await serving.serve(bound)
        try:
            yield bound.getsockname()[1]
        finally:
            server.close()
            # No connection may outlive its loop.
            for connection in list(serving.connections):
                connection.abort()
            while serving.connections:
                await asyncio.sleep(0)


def request(path=PREDICT, content=b"", *, headers=(), key=KEY.token):
    """Write the bytes of one POST, with a content-length unless one is given."""
    lines = [f"POST {path} HTTP/1.1", "host: public", f"authorization: Bearer {key}"]
    lines += [f"{name}: {value}" for name, value in headers]
    if not any(name in ("content-length", "transfer-encoding") for name, _ in headers):
        lines.append(f"content-length: {len(content)}")
    return "\r\n".join([*lines, "", ""]).encode() + content


async def settled(count, *, quiet_s=0.3):
    """Return a count once it is not 0 and has not changed for `quiet_s`."""
    before = None
    async with asyncio.timeout(60):
        while not (now := count()) or now != before:
            before = now
            await asyncio.sleep(quiet_s)
    return now


async def read_answer(reader):
    """Read one answer; return status, headers and body, or None at the end."""
    try:
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 30)
    except asyncio.IncompleteReadError:
        return None
    first, *lines = head.decode().strip().split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines)
    body = await reader.readexactly(int(headers["content-length"]))
    return int(first.split()[1]), headers, body


class Plant:
    """A whole gateway; must be made inside a running event loop."""

    def __init__(
        self,
        folder,
        *,
        limits=None,
        engines=("cpu",),
        max_upload_bytes=1000,
        prefetch=False,
        max_relayed_bytes=10**9,
        max_large_bytes=10**9,
        trusted_proxies=(),
        site=None,
        site_timeout_s=5,
        connect=FakeEngine,
        max_waiting=1000,
        calls=None,
        examples=None,
        **spool,
    ):
        self.clock = ManualClock(1_000_000.0)
        self.site = FakeSite()
        self.leases = LeaseClient(
            holder="boot", clock=self.clock, timer=self.clock, transport=self.site
        )
        make_admission = functools.partial(
            Admission, prefetch=self.leases.prefetch if prefetch else None
        )
        self.tables = Tables(
            published(limits=limits, engines=engines), make_admission=make_admission
        )
        self.made = {}
        self._connect = connect
        self.engines = Engines(self._make_engine, self.tables, max_waiting=max_waiting)
        self.engines.replace(self.tables.engines)
        self.engine = self.made[engines[0]]
        self.plan = PredictionPlan(self.tables, boot_id="boot", clock=self.clock)
        self.folder = folder
        self.writer = SpoolWriter(folder, "boot", **spool)
        self.recorder = Recorder(self.writer)
        self.metrics = Metrics()
        self.metrics.lease_failures = self.leases.failures
        self.bodies = SlowBodies(self.clock)
        self.held = Bytes(max_relayed_bytes)
        self.buffers = Buffers(folder, self.held)
        self.turns = UploadSlots(4)
        self.driver = GatewayDriver(
            plan=self.plan,
            engines=self.engines,
            leases=self.leases,
            recorder=self.recorder,
            metrics=self.metrics,
            files=InputFiles(transport=self.site),
            body_timeout_s=5,
            calls=calls,
            examples=examples,
            max_large_bytes=max_large_bytes,
            clock=self.clock,
            timer=self.clock,
        )
        self.app = GatewayApp(
            self.driver,
            Relay(
                site or self.site,
                self.bodies,
                clients=Clients(self.tables, Networks(trusted_proxies), self.clock),
                buffers=self.buffers,
                turns=self.turns,
                max_bytes=max_upload_bytes,
                idle_timeout_s=5,
                site_timeout_s=site_timeout_s,
                trusted_proxies=Networks(trusted_proxies),
                clock=self.clock,
            ),
        )
        self.listener = listener(self.app.read, self.clock)
        self.reporter = Reporter(
            plan=self.plan,
            engines=self.engines,
            metrics=self.metrics,
            recorder=self.recorder,
            leases=self.leases,
        )
        self.operator_app = OperatorApp(self.reporter)
        self.control_app = ControlApp(self.reporter, self.tables)

    def add_canary(self):
        """Deal half of the calls to version 2, made like version 1."""
        snapshot = self.tables.as_snapshot()
        [model] = snapshot.models
        [version], [default] = model.versions, model.variants
        model = msgspec.structs.replace(
            model,
            versions=(version, msgspec.structs.replace(version, version=2)),
            variants=(
                msgspec.structs.replace(default, weight_percent=50),
                Variant(version=2, role="canary", weight_percent=50),
            ),
        )
        self.tables.replace(
            msgspec.structs.replace(snapshot, sequence=2, models=(model,))
        )

    def _make_engine(self, address):
        self.made[address] = self._connect(address)
        return self.made[address]

    async def ask(
        self, path=PREDICT, content=None, *, method="POST", app=None, **given
    ):
        headers = {"authorization": f"Bearer {KEY.token}"} | given.pop("headers", {})
        if content is None and method == "POST":
            content = json.dumps(GOOD).encode()
        serving = listener(answered_by(app), self.clock) if app else self.listener
        # Without `verify=False`, loading certificates takes longer than the request.
        asking = httpx.AsyncClient(verify=False)
        async with listening(serving) as port, asking as client:
            return await client.request(
                method,
                f"http://127.0.0.1:{port}{path}",
                content=content,
                headers={"host": "public"} | headers,
                **given,
            )

    @contextlib.asynccontextmanager
    async def connect(self, *sent):
        """Open one raw connection; yield its reader and writer."""
        async with listening(self.listener) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                for data in sent:
                    writer.write(data)
                yield reader, writer
            finally:
                writer.transport.abort()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()

    def start(self, messages, *, path, headers=(), on_send=None):
        """Relay a request of scripted messages; return the task and what it sends.

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
            "has_left": lambda: False,
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
