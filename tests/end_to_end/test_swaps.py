"""Test moves of versions, deaths of engines and stops of processes under load."""

import asyncio
import contextlib
import itertools
import json
import os
import signal
import sys
import threading
import time
import urllib.error
import urllib.request
from collections import Counter

import pytest

from benchmarks import data_plane
from benchmarks.data_plane import DataPlane
from benchmarks.open_loop import Generator
from config.processes.supervisor import ProcessSpec, Supervisor
from inference.engine.wire.messages import VersionKey
from inference.prediction.plan import DEFAULT_TIMEOUT_S
from tests.waiting import until

pytestmark = pytest.mark.processes

ROW_S = 0.0005
MOVES = 100


def generator_for(plane):
    return Generator(
        plane.port, data_plane.PATH, data_plane.BODY, token=plane.key.token
    )


def statuses(answers):
    return Counter(one.status for one in answers)


def failed(answers):
    """Return the answers that are not predictions; their bodies say why."""
    return [one for one in answers if one.status != 200]


@pytest.fixture
def plane(tmp_path):
    with data_plane.running(tmp_path, row_s=ROW_S) as running:
        yield running


def test_a_hundred_default_moves_fail_no_request(plane):
    """The default moves between two versions; each tenth move replaces one of them."""

    def move(generator, version, leaving=None):
        plane.load(version, row_s=ROW_S)
        plane.publish(version)
        published_s = generator.now()
        plane.wait(
            lambda: any(
                one.version == str(version) and one.sent_s > published_s
                for one in generator.answers[-MOVES:]
            ),
            what=f"an answer of version {version}",
            timeout_s=60,
        )
        if leaving is not None:
            # Calls that chose this version reached the engine before, and are answered.
            plane.engine.unload(VersionKey(data_plane.MODEL, leaving))

    async def main():
        async with generator_for(plane) as generator:
            load = asyncio.create_task(generator.send(100, 240))
            present, newest = [1], 1
            for number in range(MOVES):
                leaving = None
                if number % 10 == 0:
                    newest += 1
                    leaving = present.pop(0) if len(present) > 1 else None
                    present.append(newest)
                else:
                    present.reverse()
                await asyncio.to_thread(move, generator, present[-1], leaving)
            load.cancel()
            await generator.all_answered()
            assert not generator.in_flight
        return generator.answers

    answers = asyncio.run(main())

    assert failed(answers) == []
    moves = sum(
        one.version != following.version
        for one, following in itertools.pairwise(
            sorted(answers, key=lambda one: one.sent_s)
        )
    )
    assert moves >= MOVES
    assert len(plane.engine.status().versions) == 2


@contextlib.contextmanager
def supervised_engine(plane):
    """Run the engine under the real supervisor."""
    spec = ProcessSpec(
        "engine",
        (sys.executable, "-m", "inference.engine"),
        stop_phase=0,
        environment=plane.environment,
    )
    supervisor = Supervisor((spec,), home=plane.home)
    supervisor.start()
    thread = threading.Thread(target=supervisor.run)
    thread.start()
    try:
        yield supervisor
    finally:
        supervisor.request_stop()
        thread.join()


def kill(plane, supervisor):
    os.kill(supervisor.pids()["engine"], signal.SIGKILL)


def poison(plane, supervisor):
    """Send a row that breaks the device: the engine must end by itself."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{plane.port}{data_plane.PATH}",
        data=json.dumps({"instances": [{"x": data_plane.POISON}]}).encode(),
        headers={
            "authorization": f"Bearer {plane.key.token}",
            "content-type": "application/json",
        },
    )
    with pytest.raises(urllib.error.HTTPError):
        urllib.request.urlopen(request, timeout=10)


@pytest.mark.parametrize("harm", [kill, poison])
def test_a_lost_engine_comes_back_by_itself_and_nobody_hangs(tmp_path, harm):
    plane = DataPlane(tmp_path)
    plane.publish(1)

    async def main(supervisor):
        async with generator_for(plane) as generator:
            load = asyncio.create_task(generator.send(50, 240))
            await until(lambda: len(generator.answers) > 50)
            lost = supervisor.pids()["engine"]
            harmed_s = generator.now()
            await asyncio.to_thread(harm, plane, supervisor)
            await until(lambda: supervisor.pids().get("engine", lost) != lost)
            started_s = generator.now()
            await until(
                lambda: any(
                    one.status == 200 and one.sent_s > started_s
                    for one in generator.answers[-100:]
                )
            )
            back_s = generator.now()
            count = len(generator.answers)
            await until(lambda: len(generator.answers) > count + 50)
            load.cancel()
            await generator.all_answered()
            assert not generator.in_flight
        return generator.answers, harmed_s, back_s

    try:
        with supervised_engine(plane) as supervisor:
            plane.start_gateway()
            started = time.monotonic()
            plane.wait_listening()
            plane.load(1, row_s=ROW_S)
            first_s = time.monotonic() - started
            answers, harmed_s, back_s = asyncio.run(main(supervisor))
    finally:
        plane.stop()

    assert failed(one for one in answers if one.sent_s > back_s) == []
    # The promise is ten seconds plus the engine's start, which depends on the machine.
    assert back_s - harmed_s < 10 + 3 * first_s
    away = failed(answers)
    # Calls wait for the engine's return, as many as have room; others are refused at
    # once, with a time to wait.
    assert statuses(away).keys() <= {503, 500}
    assert statuses(away)[500] <= 10 * (harm is poison)
    assert all(one.retry_after_s for one in away if one.status == 503)
    # A call that hung would have waited for its deadline.
    assert max((one.took_s for one in answers), default=0) < DEFAULT_TIMEOUT_S


def test_sigterm_under_load_fails_no_accepted_request(plane):
    """The gateway stops first and then the engine, as when a machine shuts down."""

    async def main():
        async with generator_for(plane) as generator:
            # Open all connections before: the gateway accepts none while it stops.
            await generator.connect(400)
            load = asyncio.create_task(generator.send(100, 240))
            await until(lambda: len(generator.answers) > 150)
            gateway = plane.processes["inference.gateway"]
            stopping_s = generator.now()
            gateway.send_signal(signal.SIGTERM)
            code = await asyncio.to_thread(gateway.wait, 30)
            load.cancel()
            await generator.all_answered()
        return generator.answers, stopping_s, code

    answers, stopping_s, code = asyncio.run(main())
    engine = plane.processes["inference.engine"]
    engine.send_signal(signal.SIGTERM)

    assert code == 0
    assert engine.wait(30) == 0
    before = [one for one in answers if one.sent_s < stopping_s]
    assert len(before) > 150
    assert failed(before) == []
    # 0: the gateway does not listen any more. All accepted calls were answered.
    assert statuses(answers).keys() <= {200, 503, 0}


def test_sigterm_for_an_engine_under_load_fails_no_accepted_request(plane):
    async def main():
        async with generator_for(plane) as generator:
            load = asyncio.create_task(generator.send(150, 240))
            await until(lambda: len(generator.answers) > 150)
            plane.processes["inference.engine"].send_signal(signal.SIGTERM)
            code = await asyncio.to_thread(plane.processes["inference.engine"].wait, 30)
            ended_s = generator.now()
            await until(lambda: generator.answers[-1].sent_s > ended_s)
            load.cancel()
            await generator.all_answered()
            assert not generator.in_flight
        return generator.answers, code

    answers, code = asyncio.run(main())

    assert code == 0
    # Accepted calls are answered; later calls are refused with a time to wait.
    assert statuses(answers).keys() == {200, 503}
    assert all(one.retry_after_s for one in answers if one.status == 503)
