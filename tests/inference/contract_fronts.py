"""Sending one request to each front, inside the test's own process."""

import asyncio
import queue
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
from django.test import Client

from accounts.networks import Networks
from inference import snapshot_file
from inference.engine.client import SocketEngineClient
from inference.gateway.app import GatewayApp
from inference.gateway.buffers import Buffers
from inference.gateway.clients import Clients, SlowBodies
from inference.gateway.engines import Engines
from inference.gateway.input_files import InputFiles
from inference.gateway.leases import LeaseClient
from inference.gateway.recorder import Recorder
from inference.gateway.relay import Relay
from inference.gateway.relay_bounds import Bytes, Turns
from inference.home import Home
from inference.metrics import Metrics
from inference.prediction import PredictionPlan
from inference.spool import SpoolWriter
from inference.tables import Tables
from tests.inference.gateway.plant import listener, listening


class SiteTransport(httpx.AsyncBaseTransport):
    """The site, as its own processes call it, answered by the test's own thread.

    There alone is the database connection with the test's transaction.
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

    async def ask() -> httpx.Response:
        app, engines, recorder = _gateway(home, SiteTransport(to_site))
        async with (
            listening(listener(app.read, time.monotonic)) as port,
            httpx.AsyncClient(
                base_url=f"http://localhost:{port}", verify=False
            ) as client,
        ):
            for _ in range(times):
                answer = await client.request(
                    method, path, headers=headers, content=content
                )
        await engines.close()
        recorder.close()
        return answer

    with ThreadPoolExecutor(1) as threads:
        asked = threads.submit(asyncio.run, ask())
        asked.add_done_callback(lambda _: to_site.put(None))
        while (ask_site := to_site.get()) is not None:
            ask_site()
    answer = asked.result()
    return answer.status_code, dict(answer.headers), answer.content


def _gateway(home: Home, site: SiteTransport) -> tuple[GatewayApp, Engines, Recorder]:
    boot_id = f"gateway{time.monotonic_ns()}"
    tables = Tables(snapshot_file.read(home.snapshot))
    engines = Engines(SocketEngineClient)
    engines.replace(tables.engines)
    bodies = SlowBodies(time.monotonic)
    recorder = Recorder(SpoolWriter(home.spool, boot_id))
    app = GatewayApp(
        plan=PredictionPlan(tables, boot_id=boot_id),
        engines=engines,
        leases=LeaseClient(holder=boot_id, clock=time.time, transport=site),
        recorder=recorder,
        metrics=Metrics(),
        relay=Relay(
            site,
            bodies,
            clients=Clients(tables, Networks(()), time.time),
            buffers=Buffers(home.relayed, Bytes(10**9)),
            turns=Turns(8),
            max_bytes=1024,
            idle_timeout_s=5,
            site_timeout_s=5,
            clock=time.time,
        ),
        files=InputFiles(transport=site),
        body_timeout_s=5,
    )
    return app, engines, recorder
