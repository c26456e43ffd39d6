"""Engines die under calls: real processes, real sockets, a whole gateway."""

import asyncio
import contextlib
import functools
import json

import msgspec
import pytest

from accounts.admission.limits import Limits
from inference.engine.clients.socket_client import SocketEngineClient
from inference.engine.wire.messages import VersionKey
from inference.snapshot.contents import Fallback, FixedAnswer
from tests.inference.gateway.engine_processes import DEADLY, EngineProcesses
from tests.inference.gateway.plant import (
    KEY,
    OTHER_KEY,
    Plant,
    listening,
    read_answer,
    request,
)
from tests.waiting import until

NO_LIMITS = Limits(plan="p", rates=())
VERSION = VersionKey("m", 1)
STREAM = "/api/v1/models/m/stream"


def on_loop(test):
    """Run a coroutine function as a test."""

    @functools.wraps(test)
    def run(*arguments, **named):
        asyncio.run(test(*arguments, **named))

    return run


async def end(writer):
    writer.transport.abort()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


@pytest.fixture
def processes(tmp_path):
    with EngineProcesses(tmp_path) as made:
        yield made


@contextlib.asynccontextmanager
async def gateway(tmp_path, processes, *names, max_waiting=1024, **changes):
    """Yield a gateway whose version is ready on these engines, and its port."""
    spool = tmp_path / "spool"
    spool.mkdir()
    plant = Plant(
        spool,
        engines=tuple(processes.path(name) for name in names),
        connect=SocketEngineClient,
        max_waiting=max_waiting,
        limits=NO_LIMITS,
    )
    change(plant, **changes)
    await plant.engines.ask()
    assert plant.engines.is_ready(VERSION, on=plant.tables.engines)
    async with listening(plant.listener) as port:
        yield plant, port
    await close(plant)


async def close(plant):
    await plant.engines.close()
    # Transports close in the next turn of the loop.
    await asyncio.sleep(0)
    await asyncio.sleep(0)


def change(plant, *, broken=(), **of_version):
    """Publish the version with these changes."""
    snapshot = plant.tables.as_snapshot()
    [model] = snapshot.models
    [version] = model.versions
    version = msgspec.structs.replace(version, **of_version)
    model = msgspec.structs.replace(model, versions=(version,), broken=broken)
    plant.tables.replace(msgspec.structs.replace(snapshot, models=(model,)))


class Caller:
    """Call over one connection, and keep the answers."""

    def __init__(self, port, *, key=KEY, path="/api/v1/models/m/predict"):
        self._port = port
        self._key = key
        self._path = path
        self.wrong = []
        self.answered = 0

    async def __aenter__(self):
        self._reader, self.writer = await asyncio.open_connection(
            "127.0.0.1", self._port
        )
        return self

    async def __aexit__(self, *_):
        await end(self.writer)

    async def call(self, value, *headers):
        """Return status and body."""
        content = json.dumps({"instances": [{"x": value}]}).encode()
        self.writer.write(
            request(self._path, content, headers=headers, key=self._key.token)
        )
        status, headers, body = await read_answer(self._reader)
        self.headers = headers
        return status, json.loads(body)

    async def keep_calling(self, numbers, stop):
        while not stop.is_set():
            value = next(numbers)
            status, body = await self.call(value)
            self.answered += 1
            if (status, body.get("predictions")) != (200, [2.0 * value]):
                self.wrong.append((status, body))


@contextlib.asynccontextmanager
async def load(port, *, connections=16):
    """Call without a pause; all answers must be right."""
    stop = asyncio.Event()
    # float32 holds these whole numbers.
    numbers = iter(range(1, 2**24))
    async with contextlib.AsyncExitStack() as stack:
        callers = [
            await stack.enter_async_context(Caller(port)) for _ in range(connections)
        ]
        calling = [
            asyncio.create_task(caller.keep_calling(numbers, stop))
            for caller in callers
        ]
        yield callers
        stop.set()
        await asyncio.wait_for(asyncio.gather(*calling), 30)


def answered(callers):
    return sum(caller.answered for caller in callers)


def assert_each_charged_once(plant, count):
    events = plant.events()
    assert len(events) == count
    assert {(event.status, event.charged, event.rows) for event in events} == {
        (200, True, 1)
    }
    assert len({event.id for event in events}) == count


@on_loop
async def test_no_call_fails_while_one_of_two_replicas_is_killed_100_times(
    tmp_path, processes
):
    for name in "ab":
        processes.start(name, row_s=0.002)
    async with gateway(tmp_path, processes, "a", "b") as (plant, port):
        asking = asyncio.create_task(plant.engines.keep_asking())
        async with load(port) as callers:
            for kill in range(100):
                name = "ab"[kill % 2]
                client = plant.made[processes.path(name)]
                # A call that was repeated has its answer before the next kill.
                enough = answered(callers) + 2 * len(callers)
                await until(lambda enough=enough: answered(callers) > enough)
                await until(lambda client=client: client.in_flight)
                processes.kill(name)
                await until(lambda client=client: not client.connected)
                processes.start(name, row_s=0.002)
                await until(lambda client=client: client.connected)
        asking.cancel()

        assert [wrong for caller in callers for wrong in caller.wrong] == []
        assert_each_charged_once(plant, answered(callers))
    rows = processes.rows()
    assert len(rows) > answered(callers), "no call was repeated, so nothing is proved"
    assert max(rows.count(row) for row in set(rows)) == 2


@on_loop
async def test_no_call_fails_while_the_only_process_restarts(tmp_path, processes):
    processes.start("a", row_s=0.002)
    async with gateway(tmp_path, processes, "a") as (plant, port):
        async with load(port) as callers:
            for _ in range(3):
                before = answered(callers)
                await until(lambda before=before: answered(callers) > before + 50)
                processes.kill("a")
                await asyncio.sleep(0.3)
                processes.start("a", row_s=0.002, loading_s=0.1)

        assert [wrong for caller in callers for wrong in caller.wrong] == []
        assert_each_charged_once(plant, answered(callers))
        assert plant.engines.absences.shares.used == 0
    assert len(processes.rows()) > answered(callers)


@on_loop
async def test_a_call_that_must_not_be_repeated_gets_an_error(tmp_path, processes):
    for name in "ab":
        processes.start(name, row_s=60)
    engines = gateway(tmp_path, processes, "a", "b", repeatable=False)
    async with engines as (plant, port), Caller(port) as caller:
        calling = asyncio.create_task(caller.call(5))
        await until(processes.rows)
        for name in "ab":
            processes.kill(name)
        status, body = await calling

        assert (status, body["error"]["code"]) == (500, "MODEL_ERROR")
        assert "calls to this version are not repeated" in body["error"]["message"]
        assert processes.rows() == [5.0]
        [event] = plant.events()
        assert not event.charged

        # A call that was not sent yet still waits for the restart.
        await until(lambda: not any(one.connected for one in plant.made.values()))
        calling = asyncio.create_task(caller.call(6))
        await until(lambda: plant.engines.absences.shares.used)
        processes.start("a")
        status, body = await calling
        assert (status, body["predictions"]) == (200, [12.0])


@on_loop
async def test_a_call_that_ends_two_processes_is_not_sent_again(tmp_path, processes):
    processes.start("a")
    async with gateway(tmp_path, processes, "a") as (plant, port), Caller(port) as one:
        calling = asyncio.create_task(one.call(DEADLY))
        await until(lambda: not processes.is_alive("a"))
        processes.start("a")
        status, body = await calling

        assert (status, body["error"]["code"]) == (500, "MODEL_ERROR")
        assert "ended twice" in body["error"]["message"]
        assert processes.rows() == [DEADLY, DEADLY]
        [event] = plant.events()
        assert not event.charged
        assert plant.engines.absences.shares.used == 0


@on_loop
async def test_a_call_is_answered_before_its_deadline_if_nothing_comes_back(
    tmp_path, processes
):
    processes.start("a")
    async with gateway(tmp_path, processes, "a") as (_, port), Caller(port) as caller:
        processes.kill("a")
        started = asyncio.get_running_loop().time()
        status, body = await caller.call(1, ("x-deadline-ms", "400"))
        took_s = asyncio.get_running_loop().time() - started

    assert (status, body["error"]["code"]) == (503, "MODEL_UNAVAILABLE")
    assert "retry-after" in caller.headers
    assert 0.3 < took_s < 0.4


@on_loop
async def test_a_fallback_answers_after_a_short_wait(tmp_path, processes):
    processes.start("a")
    async with gateway(tmp_path, processes, "a") as (plant, port), Caller(port) as one:
        snapshot = plant.tables.as_snapshot()
        fallback = Fallback(("MODEL_UNAVAILABLE",), answer=FixedAnswer(0.5))
        model = msgspec.structs.replace(snapshot.models[0], fallback=fallback)
        plant.tables.replace(msgspec.structs.replace(snapshot, models=(model,)))
        processes.kill("a")
        started = asyncio.get_running_loop().time()
        status, body = await one.call(1)
        took_s = asyncio.get_running_loop().time() - started

    assert (status, body["predictions"]) == (200, [0.5])
    assert 0.9 < took_s < 2


@on_loop
async def test_a_repeated_call_has_only_the_rest_of_its_time(tmp_path, processes):
    processes.start("a", row_s=60)
    async with gateway(tmp_path, processes, "a") as (_, port), Caller(port) as caller:
        started = asyncio.get_running_loop().time()
        calling = asyncio.create_task(caller.call(1, ("x-deadline-ms", "800")))
        await until(processes.rows)
        await asyncio.sleep(0.3)
        processes.kill("a")
        processes.start("a", row_s=60)
        status, body = await calling
        took_s = asyncio.get_running_loop().time() - started

    assert (status, body["error"]["code"]) == (504, "INFERENCE_TIMEOUT")
    assert processes.rows() == [1.0, 1.0]
    assert 0.75 < took_s < 1.0


@on_loop
async def test_a_client_that_leaves_waits_no_more(tmp_path, processes):
    processes.start("a")
    async with gateway(tmp_path, processes, "a") as (plant, port):
        waiting = plant.engines.absences.shares
        async with Caller(port) as caller:
            processes.kill("a")
            calling = asyncio.create_task(caller.call(1))
            await until(lambda: waiting.used == 1)
            caller.writer.transport.abort()
            await until(lambda: waiting.used == 0)
            calling.cancel()
        processes.start("a")
        await until(lambda: plant.made[processes.path("a")].connected)

    assert processes.rows() == []


@on_loop
async def test_waiting_calls_are_bounded_and_customers_share_the_bound(
    tmp_path, processes
):
    processes.start("a")
    async with (
        gateway(tmp_path, processes, "a", max_waiting=2) as (plant, port),
        Caller(port) as one,
        Caller(port) as two,
        Caller(port, key=OTHER_KEY) as other,
    ):
        processes.kill("a")
        waiting = plant.engines.absences.shares
        assert plant.metrics.bounds["waiting_for_engines"] is waiting
        first = asyncio.create_task(one.call(1))
        await until(lambda: waiting.used == 1)
        status, body = await two.call(2)
        assert (status, body["error"]["code"]) == (503, "MODEL_UNAVAILABLE")
        assert waiting.refused == 1
        others = asyncio.create_task(other.call(3))
        await until(lambda: waiting.used == 2)
        processes.start("a")

        assert ((await first)[0], (await others)[0]) == (200, 200)


@on_loop
async def test_a_version_that_was_never_ready_is_not_waited_for(tmp_path, processes):
    processes.start("a", loading_s=60)
    spool = tmp_path / "spool"
    spool.mkdir()
    plant = Plant(spool, engines=(processes.path("a"),), connect=SocketEngineClient)
    await plant.engines.ask()
    async with listening(plant.listener) as port, Caller(port) as caller:
        async with asyncio.timeout(5):
            loading = await caller.call(1)
            processes.kill("a")
            await until(lambda: not plant.made[processes.path("a")].connected)
            gone = await caller.call(1)
    await close(plant)

    assert [loading[0], gone[0]] == [503, 503]
    assert "retry-after" in caller.headers


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"quarantined": True, "engines": ()}, "is quarantined"),
        ({"broken": ("1",)}, "loading or restarting"),
    ],
)
@on_loop
async def test_calls_that_wait_learn_that_a_person_must_act(
    tmp_path, processes, changes, words
):
    processes.start("a")
    async with gateway(tmp_path, processes, "a") as (plant, port), Caller(port) as one:
        processes.kill("a")
        calling = asyncio.create_task(one.call(1))
        await until(lambda: plant.engines.absences.shares.used)
        change(plant, **changes)
        async with asyncio.timeout(5):
            waited = await calling
            later = await one.call(1)

    for status, body in (waited, later):
        assert (status, body["error"]["code"]) == (503, "MODEL_UNAVAILABLE")
        assert words in body["error"]["message"]


@on_loop
async def test_a_call_waits_until_another_engine_has_the_version(tmp_path, processes):
    for name in "ab":
        processes.start(name)
    async with gateway(tmp_path, processes, "a", "b") as (plant, port):
        change(plant, engines=(processes.path("a"),))
        processes.kill("a")
        async with Caller(port) as caller:
            calling = asyncio.create_task(caller.call(4))
            await until(lambda: plant.engines.absences.shares.used)
            change(plant, engines=(processes.path("b"),))

            assert (await calling)[1]["predictions"] == [8.0]


@on_loop
async def test_a_stream_is_repeated_before_its_first_chunk(tmp_path, processes):
    processes.start("a", row_s=60)
    async with gateway(tmp_path, processes, "a") as (_, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        content = json.dumps({"instances": [{"x": 1}]}).encode()
        writer.write(request(STREAM, content))
        await until(processes.rows)
        processes.kill("a")
        processes.start("a")
        answer = await asyncio.wait_for(reader.readuntil(b'"chunk":1}\n\n'), 30)
        await end(writer)

    assert answer.startswith(b"HTTP/1.1 200")
    assert processes.rows() == [1.0, 1.0]
