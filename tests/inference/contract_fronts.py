"""Send one request to the gateway and to Django, in the test's own process."""

import asyncio
import queue
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
from django.test import Client

from accounts.admission.networks import Networks
from accounts.metering.spool import SpoolWriter
from inference.engine.clients.socket_client import SocketEngineClient
from inference.gateway.app import GatewayApp
from inference.gateway.bounds import Bytes, UploadSlots
from inference.gateway.driver.driver import GatewayDriver
from inference.gateway.driver.engines import Engines
from inference.gateway.driver.lease_client import LeaseClient
from inference.gateway.driver.recorder import Recorder
from inference.gateway.driver.upload_reader import InputFiles
from inference.gateway.metrics.calls import Metrics
from inference.gateway.relay.buffers import Buffers
from inference.gateway.relay.clients import Clients, SlowBodies
from inference.gateway.relay.relay import Relay
from inference.installation.home import Home
from inference.prediction.plan import PredictionPlan
from inference.snapshot import snapshot_file
from inference.snapshot.tables import Tables
from tests.inference.gateway.plant import listener, listening
from tests.inference.http_answers import Answer, read_all


class SiteTransport(httpx.AsyncBaseTransport):
    """Send requests for the site to the test's own thread.

    Only that thread has the database connection with the test's transaction.
    """

    def __init__(self, to_site: queue.Queue[Any]) -> None:
        self._to_site = to_site

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        content = await request.aread()
        loop = asyncio.get_running_loop()
        answered: asyncio.Future[httpx.Response] = loop.create_future()

        def ask_site() -> None:
            response = Client(REMOTE_ADDR="").generic(
                request.method,
                request.url.path,
                content,
                request.headers.get("content-type", ""),
                headers={"Host": "localhost"},
            )
            loop.call_soon_threadsafe(
                answered.set_result,
                httpx.Response(response.status_code, content=response.content),
            )

        self._to_site.put(ask_site)
        return await answered


def ask_gateway(
    home: Home,
    *,
    method: str,
    path: str,
    headers: dict[str, str],
    content: bytes,
    times: int,
) -> tuple[int, dict[str, str], bytes]:
    """Start a gateway in a thread, ask it, and return the last answer."""
    to_site: queue.Queue[Any] = queue.Queue()

    async def ask() -> Answer:
        app, engines, recorder = _gateway(home, SiteTransport(to_site))
        sent = [_request(method, path, headers, content) for _ in range(times)]
        sent[-1] = sent[-1].replace(b"\r\n", b"\r\nConnection: close\r\n", 1)
        async with listening(listener(app.read, time.monotonic)) as port:
            received = await ask_raw(port, b"".join(sent))
        await engines.close()
        recorder.close()
        return read_all(received, [method] * times)[-1]

    with ThreadPoolExecutor(1) as threads:
        asked = threads.submit(asyncio.run, ask())
        asked.add_done_callback(lambda _: to_site.put(None))
        while (ask_site := to_site.get()) is not None:
            ask_site()
    answer = asked.result()
    return answer.status, answer.headers, answer.body


def _request(method: str, path: str, headers: dict[str, str], content: bytes) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    lines.append(f"Content-Length: {len(content)}")
    return "\r\n".join([*lines, "", ""]).encode() + content


async def ask_raw(port: int, sent: bytes) -> bytes:
    """Send bytes, and return all bytes until the connection is closed."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(sent)
    # A refusal may arrive before everything is sent.
    received = await asyncio.wait_for(reader.read(), 60)
    writer.transport.abort()
    return received


def _gateway(home: Home, site: SiteTransport) -> tuple[GatewayApp, Engines, Recorder]:
    boot_id = f"gateway{time.monotonic_ns()}"
    tables = Tables(snapshot_file.read(home.snapshot))
    engines = Engines(SocketEngineClient, tables)
    engines.replace(tables.engines)
    bodies = SlowBodies(time.monotonic)
    recorder = Recorder(SpoolWriter(home.spool, boot_id))
    driver = GatewayDriver(
        plan=PredictionPlan(tables, boot_id=boot_id),
        engines=engines,
        leases=LeaseClient(holder=boot_id, clock=time.time, transport=site),
        recorder=recorder,
        metrics=Metrics(),
        files=InputFiles(transport=site),
        body_timeout_s=5,
    )
    relay = Relay(
        site,
        bodies,
        clients=Clients(tables, Networks(()), time.time),
        buffers=Buffers(home.relayed, Bytes(10**9)),
        turns=UploadSlots(8),
        max_bytes=1024,
        idle_timeout_s=5,
        site_timeout_s=5,
        clock=time.time,
    )
    app = GatewayApp(driver, relay)
    return app, engines, recorder
