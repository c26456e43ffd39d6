import asyncio
import threading

import msgspec
import pytest

from inference.engine.engine import EngineCore
from inference.engine.in_process import InProcessEngineClient
from inference.engine.loading import desired
from inference.engine.runners import runner
from inference.engine.runners.runner import Loaded
from inference.engine.wire.calls import PredictionCall
from inference.engine.wire.errors import EngineError, EngineErrorCode
from inference.engine.wire.messages import VersionKey, VersionToLoad
from tests.inference.engine.fakes import (
    KEY,
    MATRIX,
    FakeRunner,
    fake_engine,
    loaded_engine,
    ready,
    rows,
    run,
    settings,
    to_load,
    until,
)


class Loader:
    """A loader that makes a runner for each flavor; a test can hold it."""

    def __init__(self):
        self.runners = {}
        self.loads = []
        self.go_on = threading.Event()
        self.go_on.set()

    def __call__(self, version, device):
        assert self.go_on.wait(60)
        (flavor,) = version.flavors
        self.loads.append(flavor)
        if flavor == "broken":
            raise EngineError(EngineErrorCode.LOAD_FAILED, "it is broken")
        runner = self.runners[flavor] = FakeRunner()
        return Loaded(runner, MATRIX)


async def answer(engine, value=1):
    client = InProcessEngineClient(engine)
    return (
        (await client.predict(PredictionCall(KEY, rows(value), timeout_s=60)))
        .tensors[0]
        .data[0, 0]
    )


def test_a_version_that_loads_is_not_ready_yet(tmp_path):
    async def main():
        loader = Loader()
        loader.go_on.clear()
        engine = EngineCore(settings(tmp_path), load=loader)
        engine.load(to_load())

        with pytest.raises(EngineError) as caught:
            await answer(engine)
        loader.go_on.set()
        await ready(engine)

        assert caught.value.code is EngineErrorCode.LOADING
        assert caught.value.retry_after_ms
        assert await answer(engine) == 2
        engine.close()

    run(main())


def test_loading_the_same_again_changes_nothing(tmp_path):
    async def main():
        loader = Loader()
        engine = EngineCore(settings(tmp_path), load=loader)
        engine.load(to_load())
        engine.load(to_load())
        await ready(engine)
        engine.load(to_load())
        await ready(engine)

        assert loader.loads == ["fake"]
        engine.close()

    run(main())


def test_a_reload_answers_all_along_and_frees_the_old(tmp_path):
    async def main():
        loader = Loader()
        engine = EngineCore(settings(tmp_path), load=loader)
        engine.load(to_load(flavors=("old",)))
        await ready(engine)
        loader.go_on.clear()
        engine.load(to_load(flavors=("new",)))

        during = await answer(engine)
        loader.go_on.set()
        await until(lambda: loader.loads == ["old", "new"])
        await until(loader.runners["old"].unloaded.is_set)
        after = await answer(engine)

        assert (during, after) == (2, 2)
        assert loader.runners["new"].batches == [1]
        engine.close()

    run(main())


def test_requests_that_wait_while_a_version_reloads_are_answered(tmp_path):
    async def main():
        loader = Loader()
        engine = EngineCore(settings(tmp_path, inline_ms=0), load=loader)
        engine.load(to_load(flavors=("old",)))
        await ready(engine)
        old = loader.runners["old"]
        old.hold()
        first = asyncio.create_task(answer(engine, 1))
        await until(old.started.is_set)
        second = asyncio.create_task(answer(engine, 2))
        await until(lambda: engine.status().versions[0].queued_rows == 1)

        engine.load(to_load(flavors=("new",)))
        await until(lambda: "new" in loader.runners)
        old.release()

        assert await asyncio.gather(first, second) == [2, 4]
        assert not engine.status().counters["unanswered"]
        engine.close()

    run(main())


def test_a_failed_reload_leaves_the_old_answering_and_says_so(tmp_path):
    async def main():
        engine = EngineCore(settings(tmp_path), load=Loader())
        engine.load(to_load(flavors=("old",)))
        await ready(engine)
        engine.load(to_load(flavors=("broken",)))
        await until(lambda: bool(engine.status().versions[0].error))

        (version,) = engine.status().versions
        assert (version.state, version.error) == ("ready", "it is broken")
        assert await answer(engine) == 2
        engine.close()

    run(main())


@pytest.mark.parametrize("flavors", [("python_function",), ("unknown",)])
def test_what_no_other_try_can_load_says_so(tmp_path, flavors):
    async def main():
        engine = EngineCore(settings(tmp_path), load=runner.load)
        engine.load(to_load(flavors=flavors))
        await until(lambda: engine.status().versions[0].state == "failed")

        assert engine.status().versions[0].refused
        engine.close()

    run(main())


@pytest.mark.parametrize(
    "change", [{"path": "/another"}, {"trusted": False, "flavors": ("broken",)}]
)
def test_another_artifact_and_withdrawn_trust_stop_the_old_one_at_once(
    tmp_path, change
):
    async def main():
        loader = Loader()
        engine = EngineCore(settings(tmp_path), load=loader)
        engine.load(to_load(flavors=("old",), trusted=True))
        await ready(engine)
        old = loader.runners["old"]
        before = engine.status().versions[0].form
        wanted = to_load(**{"flavors": ("new",), "trusted": True} | change)
        loader.go_on.clear()
        engine.load(wanted)

        with pytest.raises(EngineError) as caught:
            await answer(engine)
        loader.go_on.set()
        await until(old.unloaded.is_set)
        await until(lambda: engine.status().versions[0].state != "loading")

        (version,) = engine.status().versions
        assert caught.value.code is EngineErrorCode.LOADING
        assert version.state == ("failed" if "trusted" in change else "ready")
        assert version.form == wanted.form() != before
        engine.close()

    run(main())


def test_a_failed_version_is_tried_again_when_asked(tmp_path):
    async def main():
        loader = Loader()
        engine = EngineCore(settings(tmp_path), load=loader)
        engine.load(to_load(flavors=("broken",)))
        await ready(engine)
        engine.load(to_load(flavors=("broken",)))
        await ready(engine)

        assert loader.loads == ["broken", "broken"]
        engine.close()

    run(main())


def test_a_failed_version_stays_failed_while_it_is_tried_again(tmp_path):
    async def main():
        loader = Loader()
        engine = EngineCore(settings(tmp_path), load=loader)
        engine.load(to_load(flavors=("broken",)))
        await ready(engine)
        loader.go_on.clear()
        engine.load(to_load(flavors=("broken",)))

        with pytest.raises(EngineError) as again:
            await answer(engine)
        engine.load(to_load(flavors=("whole",)))
        with pytest.raises(EngineError) as mended:
            await answer(engine)
        loader.go_on.set()
        await until(lambda: engine.status().versions[0].state == "ready")

        assert again.value.code is EngineErrorCode.LOAD_FAILED
        assert mended.value.code is EngineErrorCode.LOADING
        assert engine.status().versions[0].error == ""
        engine.close()

    run(main())


def test_an_unload_while_loading_frees_what_was_loaded(tmp_path):
    async def main():
        loader = Loader()
        loader.go_on.clear()
        engine = EngineCore(settings(tmp_path), load=loader)
        engine.load(to_load())
        engine.unload(KEY)
        loader.go_on.set()
        await until(lambda: "fake" in loader.runners)
        await until(loader.runners["fake"].unloaded.is_set)

        assert engine.status().versions == ()
        engine.close()

    run(main())


def test_requests_that_wait_for_an_unloaded_version_are_answered(tmp_path):
    async def main():
        runner = FakeRunner()
        engine = await loaded_engine(tmp_path, runner, inline_ms=0)
        runner.hold()
        first = asyncio.create_task(answer(engine, 1))
        await until(runner.started.is_set)
        second = asyncio.create_task(answer(engine, 2))
        await until(lambda: engine.status().versions[0].queued_rows == 1)

        engine.unload(KEY)
        with pytest.raises(EngineError) as caught:
            await answer(engine, 3)
        assert not runner.unloaded.is_set()
        runner.release()

        assert caught.value.code is EngineErrorCode.NOT_LOADED
        assert await asyncio.gather(first, second) == [2, 4]
        await until(runner.unloaded.is_set)
        engine.close()

    run(main())


def test_an_engine_comes_back_with_what_it_had(tmp_path):
    async def main():
        other = VersionKey("other", 7)
        engine = EngineCore(settings(tmp_path), load=Loader())
        for wanted in (to_load(other), to_load(), to_load(VersionKey("gone", 1))):
            engine.load(wanted)
        engine.unload(VersionKey("gone", 1))
        engine.close()

        engine = EngineCore(settings(tmp_path), load=Loader())
        engine.restore()
        await ready(engine)

        assert [v.key for v in engine.status().versions] == [other, KEY]
        assert await answer(engine) == 2
        engine.close()

    run(main())


@pytest.mark.parametrize("content", [b"", b"{", b'[{"key": 1}]'])
def test_an_unreadable_desired_state_counts_as_empty(tmp_path, content):
    path = desired.path_of(settings(tmp_path))
    path.parent.mkdir(parents=True)
    path.write_bytes(content)

    assert desired.read(settings(tmp_path)) == []


def test_lanes_take_turns(tmp_path):
    """A flood on one version does not delay a single request to another."""

    async def main():
        runner = FakeRunner()
        engine = fake_engine(tmp_path, runner, inline_ms=0, max_batch_rows=2)
        quiet = VersionKey("quiet", 1)
        engine.load(to_load())
        engine.load(to_load(quiet))
        await ready(engine)
        await ready(engine, quiet)
        client = InProcessEngineClient(engine)
        runner.hold()
        order = []

        async def call(key, count):
            await client.predict(PredictionCall(key, rows(*range(count)), timeout_s=60))
            order.append(key.model)

        tasks = [asyncio.create_task(call(KEY, 2)) for _ in range(5)]
        await until(runner.started.is_set)
        tasks.append(asyncio.create_task(call(quiet, 1)))
        await until(lambda: engine.status().counters["unanswered"] == 6)
        runner.release()
        await asyncio.gather(*tasks)

        assert order.index("quiet") <= 2
        engine.close()

    run(main())


def test_asking_again_after_a_restart_loads_nothing_twice(tmp_path):
    async def main():
        wanted = msgspec.msgpack.decode(
            msgspec.msgpack.encode(to_load()), type=VersionToLoad
        )
        engine = EngineCore(settings(tmp_path), load=Loader())
        engine.load(wanted)
        engine.close()

        loader = Loader()
        engine = EngineCore(settings(tmp_path), load=loader)
        engine.restore()
        engine.load(wanted)
        await ready(engine)
        engine.load(wanted)
        await ready(engine)

        assert loader.loads == ["fake"]
        engine.close()

    run(main())
