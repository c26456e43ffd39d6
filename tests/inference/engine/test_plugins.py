import asyncio
import sys
import threading

import numpy as np
import pytest

from inference.engine.client import InProcessEngineClient
from inference.engine.errors import EngineError, EngineErrorCode
from inference.engine.messages import ExplainOptions
from inference.engine.tensors import Tensor
from tests.inference.engine import explainer
from tests.inference.engine.fakes import KEY, FakeRunner, loaded_engine, rows, run

PLUGIN = ("tests.inference.engine.explainer:explain",)
OPTIONS = ExplainOptions()


@pytest.fixture
def held(monkeypatch):
    """Hold the explainer until the event is set."""
    go_on, started = threading.Event(), threading.Event()
    original = explainer.explain

    def explain(model, tensors, options):
        started.set()
        assert go_on.wait(60)
        return original(model, tensors, options)

    monkeypatch.setattr(explainer, "explain", explain)
    yield go_on, started
    go_on.set()


def test_predictions_go_on_while_something_is_explained(tmp_path, held):
    go_on, started = held

    async def main():
        engine = await loaded_engine(tmp_path, FakeRunner(), plugins=PLUGIN)
        client = InProcessEngineClient(engine)
        explaining = asyncio.create_task(
            client.explain(KEY, rows(1), options=OPTIONS, timeout_s=60)
        )
        await asyncio.to_thread(started.wait, 10)

        prediction = await client.predict(KEY, rows(4), timeout_s=60)
        assert not explaining.done()
        go_on.set()

        assert prediction.tensors[0].data[0, 0] == 8
        assert (await explaining).explanations[0].base_value == 2
        engine.close()

    run(main())


def test_too_many_explanations_are_refused_at_once(tmp_path, held):
    go_on, started = held

    async def main():
        engine = await loaded_engine(
            tmp_path, FakeRunner(), plugins=PLUGIN, max_explain_queue=1
        )
        client = InProcessEngineClient(engine)
        calls = []
        for _ in range(2):
            calls.append(
                asyncio.create_task(
                    client.explain(KEY, rows(1), options=OPTIONS, timeout_s=60)
                )
            )
            await asyncio.to_thread(started.wait, 10)

        with pytest.raises(EngineError) as caught:
            await client.explain(KEY, rows(1), options=OPTIONS, timeout_s=60)
        go_on.set()
        await asyncio.gather(*calls)

        assert caught.value.code is EngineErrorCode.OVERLOADED
        assert caught.value.retry_after_ms
        engine.close()

    run(main())


def test_an_explanation_may_predict_more_rows_than_fit_the_queue(tmp_path):
    async def main():
        runner = FakeRunner()
        engine = await loaded_engine(
            tmp_path, runner, plugins=PLUGIN, max_queue_rows=300
        )
        client = InProcessEngineClient(engine)

        answer = await client.explain(
            KEY, rows(*range(1000)), options=OPTIONS, timeout_s=5
        )

        assert [e.base_value for e in answer.explanations] == [
            2 * value for value in range(1000)
        ]
        assert max(runner.batches) <= 256
        engine.close()

    run(main())


def test_the_cache_lives_as_long_as_the_version(tmp_path):
    async def main():
        engine = await loaded_engine(tmp_path, FakeRunner(), plugins=PLUGIN)
        client = InProcessEngineClient(engine)

        calls = [
            (await client.explain(KEY, rows(1), options=OPTIONS, timeout_s=60))
            .explanations[0]
            .additivity_residual
            for _ in range(2)
        ]

        assert calls == [1.0, 2.0]
        engine.close()

    run(main())


def test_an_explanation_that_takes_too_long_ends_at_its_deadline(tmp_path):
    async def main():
        runner = FakeRunner()
        engine = await loaded_engine(tmp_path, runner, plugins=PLUGIN, inline_ms=0)
        client = InProcessEngineClient(engine)
        runner.hold()

        with pytest.raises(EngineError) as caught:
            await client.explain(KEY, rows(1), options=OPTIONS, timeout_s=0.05)
        runner.release()

        assert caught.value.code is EngineErrorCode.DEADLINE_EXCEEDED
        engine.close()

    run(main())


def test_what_does_not_fit_the_signature_is_not_explained(tmp_path):
    async def main():
        engine = await loaded_engine(tmp_path, FakeRunner(), plugins=PLUGIN)
        wrong = (Tensor("input", np.zeros((1, 3), np.float32)),)

        with pytest.raises(EngineError) as caught:
            await InProcessEngineClient(engine).explain(
                KEY, wrong, options=OPTIONS, timeout_s=5
            )

        assert caught.value.code is EngineErrorCode.BAD_REQUEST
        engine.close()

    run(main())


def test_a_plug_in_is_imported_once_everything_is_loaded(tmp_path, monkeypatch):
    warmed = threading.Event()
    monkeypatch.setattr(explainer, "warm_up", warmed.set, raising=False)

    async def main():
        engine = await loaded_engine(
            tmp_path, FakeRunner(), plugins=PLUGIN, warm_plugins=True
        )

        assert await asyncio.to_thread(warmed.wait, 10)
        engine.close()

    run(main())


def test_a_plug_in_that_cannot_be_imported_is_passed_over(tmp_path):
    async def main():
        engine = await loaded_engine(
            tmp_path, FakeRunner(), plugins=("no.such.module:explain", *PLUGIN)
        )

        answer = await InProcessEngineClient(engine).explain(
            KEY, rows(1), options=OPTIONS, timeout_s=5
        )

        assert answer.explanations[0].method == "test"
        assert "no.such.module" not in sys.modules
        engine.close()

    run(main())
