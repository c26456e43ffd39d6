import asyncio
import sys
import threading

import numpy as np
import pytest
import structlog

from inference.engine.in_process import InProcessEngineClient
from inference.engine.wire.calls import ExplanationCall, PredictionCall
from inference.engine.wire.errors import EngineError, EngineErrorCode
from inference.engine.wire.messages import ExplainOptions
from inference.engine.wire.tensors import Tensor
from tests.inference.engine import explainer
from tests.inference.engine.fakes import (
    KEY,
    FakeRunner,
    ManualClock,
    SlowRunner,
    loaded_engine,
    rows,
    run,
    until,
)

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
            client.explain(ExplanationCall(KEY, rows(1), options=OPTIONS, timeout_s=60))
        )
        await asyncio.to_thread(started.wait, 10)

        prediction = await client.predict(PredictionCall(KEY, rows(4), timeout_s=60))
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
                    client.explain(
                        ExplanationCall(KEY, rows(1), options=OPTIONS, timeout_s=60)
                    )
                )
            )
            await asyncio.to_thread(started.wait, 10)

        with pytest.raises(EngineError) as caught:
            await client.explain(
                ExplanationCall(KEY, rows(1), options=OPTIONS, timeout_s=60)
            )
        go_on.set()
        await asyncio.gather(*calls)

        assert caught.value.code is EngineErrorCode.OVERLOADED
        assert caught.value.retry_after_ms
        engine.close()

    run(main())


def test_a_customer_who_floods_leaves_others_their_turn(tmp_path, held, monkeypatch):
    go_on, started = held
    turns = []
    before = explainer.explain

    def explain(model, tensors, options):
        turns.append(options.seed)
        return before(model, tensors, options)

    monkeypatch.setattr(explainer, "explain", explain)

    async def main():
        engine = await loaded_engine(
            tmp_path, FakeRunner(), plugins=PLUGIN, max_explain_queue=8
        )
        client = InProcessEngineClient(engine)

        def ask(customer_id):
            # The seed only marks whose explanation it is.
            options = ExplainOptions(seed=customer_id)
            return asyncio.create_task(
                client.explain(
                    ExplanationCall(
                        KEY,
                        rows(1),
                        options=options,
                        timeout_s=60,
                        customer_id=customer_id,
                    )
                )
            )

        first = ask(1)
        await asyncio.to_thread(started.wait, 10)
        flood = [ask(1) for _ in range(8)]
        await asyncio.sleep(0)
        once = ask(2)
        await asyncio.sleep(0)
        go_on.set()
        answers = await asyncio.gather(first, *flood, once, return_exceptions=True)

        refused = [one for one in answers if isinstance(one, EngineError)]
        assert {error.code for error in refused} == {EngineErrorCode.OVERLOADED}
        assert len(refused) == 4
        assert engine.status().counters["refused_explanations"] == 4
        assert turns == [1, 1, 2, 1, 1, 1]
        engine.close()

    run(main())


def test_a_caller_who_leaves_gives_the_place_back(tmp_path, held):
    go_on, started = held

    async def main():
        engine = await loaded_engine(
            tmp_path, FakeRunner(), plugins=PLUGIN, max_explain_queue=1
        )
        client = InProcessEngineClient(engine)

        def ask():
            return asyncio.create_task(
                client.explain(
                    ExplanationCall(KEY, rows(1), options=OPTIONS, timeout_s=60)
                )
            )

        running = ask()
        await asyncio.to_thread(started.wait, 10)
        leaving = ask()
        await asyncio.sleep(0)
        leaving.cancel()
        await asyncio.gather(leaving, return_exceptions=True)
        waiting = ask()
        await asyncio.sleep(0)
        go_on.set()

        assert (await running).explanations
        assert (await waiting).explanations
        engine.close()

    run(main())


def test_an_explanation_costs_its_own_work_and_not_its_wait(tmp_path, monkeypatch):
    clock = ManualClock()
    both, original = threading.Event(), explainer.explain

    def explain(model, tensors, options):
        assert both.wait(60)
        clock.now += 2
        result = original(model, tensors, options)
        # Time that its predictions waited for the device.
        clock.now += 5
        model.waited_s += 5
        return result

    monkeypatch.setattr(explainer, "explain", explain)

    async def main():
        engine = await loaded_engine(
            tmp_path, FakeRunner(), plugins=PLUGIN, clock=clock
        )
        client = InProcessEngineClient(engine)
        calls = [
            asyncio.create_task(
                client.explain(
                    ExplanationCall(KEY, rows(1), options=OPTIONS, timeout_s=60)
                )
            )
            for _ in range(3)
        ]
        await asyncio.sleep(0)
        both.set()

        answers = await asyncio.gather(*calls)

        assert [answer.compute_us for answer in answers] == [2_000_000] * 3
        assert [answer.queue_us for answer in answers] == [
            5_000_000,
            12_000_000,
            19_000_000,
        ]
        engine.close()

    run(main())


def test_predictions_of_an_explanation_tell_how_long_they_waited(tmp_path):
    clock, waited = ManualClock(), []

    async def main():
        # Each batch of 256 rows takes 2.56 s by the clock; the pieces follow each
        # other, and so wait for nobody.
        runner = SlowRunner(clock, row_s=0.01)
        engine = await loaded_engine(
            tmp_path, runner, plugins=PLUGIN, clock=clock, inline_ms=0
        )
        client = InProcessEngineClient(engine)
        runner.hold()
        before = asyncio.create_task(
            client.predict(PredictionCall(KEY, rows(1), timeout_s=60))
        )
        await until(runner.started.is_set)
        explaining = asyncio.create_task(
            client.explain(ExplanationCall(KEY, rows(1), options=OPTIONS, timeout_s=60))
        )
        await until(lambda: engine.status().counters["queued_rows"] == 1)
        clock.now += 3
        runner.release()
        await before

        answer = await explaining

        waited.append(answer.queue_us)
        assert answer.compute_us == pytest.approx(10_000, abs=1_000)
        assert answer.queue_us >= 3_000_000
        engine.close()

    run(main())


def test_why_something_is_not_explained_is_logged(tmp_path):
    async def main():
        engine = await loaded_engine(tmp_path, FakeRunner(), plugins=PLUGIN)
        client = InProcessEngineClient(engine)

        with structlog.testing.capture_logs() as logged, pytest.raises(EngineError):
            await client.explain(
                ExplanationCall(
                    KEY, rows(1), options=ExplainOptions(target="refuse"), timeout_s=60
                )
            )

        [event] = [one for one in logged if one["event"] == "not_explained"]
        assert event["reason"] == "no such class"
        engine.close()

    run(main())


def test_an_explainer_that_quotes_a_row_shows_it_to_nobody(tmp_path):
    async def main():
        engine = await loaded_engine(tmp_path, FakeRunner(), plugins=PLUGIN)
        client = InProcessEngineClient(engine)

        with (
            structlog.testing.capture_logs() as logged,
            pytest.raises(EngineError) as caught,
        ):
            await client.explain(
                ExplanationCall(
                    KEY,
                    rows(4321),
                    options=ExplainOptions(target="quote"),
                    timeout_s=60,
                    request_id="mine",
                )
            )

        [event] = [one for one in logged if one["event"] == "explain_failed"]
        assert event["request_id"] == "mine"
        assert event["reason"] == "cannot explain […]"
        assert "explainer.py" in event["trace"]
        assert "4321" not in str(logged) + str(caught.value)
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
            ExplanationCall(KEY, rows(*range(1000)), options=OPTIONS, timeout_s=5)
        )

        assert [e.base_value for e in answer.explanations] == [
            2 * value for value in range(1000)
        ]
        assert max(runner.batches) <= 256
        engine.close()

    run(main())


def test_what_an_explanation_predicts_counts_for_its_customer(tmp_path, held):
    go_on, started = held

    async def main():
        runner = FakeRunner()
        engine = await loaded_engine(
            tmp_path, runner, plugins=PLUGIN, inline_ms=0, max_queue_rows=4
        )
        client = InProcessEngineClient(engine)

        def predict():
            call = PredictionCall(KEY, rows(1), timeout_s=60, customer_id=1)
            return asyncio.create_task(client.predict(call))

        explaining = [
            asyncio.create_task(
                client.explain(
                    ExplanationCall(
                        KEY, rows(1), 60, options=OPTIONS, customer_id=customer
                    )
                )
            )
            for customer in (1, 2)
        ]
        await asyncio.to_thread(started.wait, 10)
        runner.hold()
        calls = [predict()]
        await until(runner.started.is_set)
        calls += [predict() for _ in range(2)]
        await until(lambda: engine.batcher.room.rows == 2)
        go_on.set()
        await asyncio.wait(explaining, return_when=asyncio.FIRST_COMPLETED)
        await until(lambda: engine.batcher.room.rows == 3)
        runner.release()
        own, other = await asyncio.gather(*explaining, return_exceptions=True)
        await asyncio.gather(*calls)

        assert own.of_customer
        assert other.explanations
        engine.close()

    run(main())


def test_the_cache_lives_as_long_as_the_version(tmp_path):
    async def main():
        engine = await loaded_engine(tmp_path, FakeRunner(), plugins=PLUGIN)
        client = InProcessEngineClient(engine)

        calls = [
            (
                await client.explain(
                    ExplanationCall(KEY, rows(1), options=OPTIONS, timeout_s=60)
                )
            )
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
            await client.explain(
                ExplanationCall(KEY, rows(1), options=OPTIONS, timeout_s=0.05)
            )
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
                ExplanationCall(KEY, wrong, options=OPTIONS, timeout_s=5)
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
            ExplanationCall(KEY, rows(1), options=OPTIONS, timeout_s=5)
        )

        assert answer.explanations[0].method == "test"
        assert "no.such.module" not in sys.modules
        engine.close()

    run(main())
