"""Test what a version's owners are told of a batch on which it failed."""

import asyncio

import pytest
import structlog

from inference.engine.engine import EngineCore
from inference.engine.in_process import InProcessEngineClient
from inference.engine.runners.runner import Loaded
from inference.engine.wire.calls import PredictionCall
from inference.engine.wire.errors import EngineError
from inference.engine.wire.messages import ProcessRules
from tests.inference.engine import fakes
from tests.inference.engine.fakes import (
    KEY,
    MATRIX,
    FakeRunner,
    ready,
    rows,
    run,
    teach,
    to_load,
)


class Quoting(FakeRunner):
    """A runner that quotes the first value of its rows."""

    def run(self, tensors):
        super().run(tensors)
        raise ValueError(f"no answer for {tensors[0].data[0, 0]}")


async def failing(home, **fields):
    engine = EngineCore(
        fakes.settings(home), load=lambda version, device: Loaded(Quoting(), MATRIX)
    )
    engine.load(to_load(**fields))
    await ready(engine)
    teach(engine)
    return engine, InProcessEngineClient(engine)


async def fail(client, *values, request_id=""):
    with pytest.raises(EngineError) as caught:
        await client.predict(
            PredictionCall(KEY, rows(*values), timeout_s=5, request_id=request_id)
        )
    return caught.value


def failures(engine):
    return engine.status().versions[0].failures


def test_a_failure_names_requests_and_exception_without_values(tmp_path):
    async def main():
        engine, client = await failing(tmp_path)

        with structlog.testing.capture_logs() as logged:
            error = await fail(client, 1234.5, 2, request_id="req_1")

        # Gateways log it.
        assert error.message == "the model raised ValueError: no answer for […]"
        [failure] = failures(engine)
        [line] = [one for one in logged if one["event"] == "batch_failed"]
        assert failure.request_ids == ("req_1",)
        assert (failure.exception, failure.rows) == ("ValueError", 2)
        assert failure.message == "no answer for […]"
        assert failure.code == "MODEL_ERROR"
        assert "test_failures.py" in failure.trace
        assert failure.at > 1_700_000_000
        assert "1234" not in repr(line)
        assert line["request_ids"] == ("req_1",)
        assert (line["version"], line["rows"]) == ("doubler v1", 2)

    run(main())


def test_values_are_logged_if_the_version_says_so_also_without_a_reload(tmp_path):
    async def main():
        engine, client = await failing(tmp_path)

        engine.load(to_load(process=ProcessRules(log_values=True)))
        error = await fail(client, 1234.5)

        assert failures(engine)[0].message == "no answer for 1234.5"
        assert error.message == "the model raised ValueError: no answer for 1234.5"

    run(main())


def test_the_last_twenty_failures_are_kept_over_a_reload(tmp_path):
    async def main():
        engine, client = await failing(tmp_path)
        for number in range(25):
            await fail(client, 1, request_id=f"req_{number}")

        engine.load(to_load(flavors=("fake", "other")))
        await asyncio.sleep(0.05)
        await ready(engine)

        kept = [one.request_ids[0] for one in failures(engine)]
        assert kept == [f"req_{number}" for number in range(5, 25)]

    run(main())


def test_a_long_id_is_cut(tmp_path):
    async def main():
        engine, client = await failing(tmp_path)

        await fail(client, 1, request_id="x" * 1000)

        assert failures(engine)[0].request_ids == ("x" * 192,)

    run(main())


class Notes:
    def __init__(self):
        self.seen = []

    def begin(self, name, rows, batch, *, loading=False):
        self.seen.append((name, rows, batch, loading))
        return len(self.seen)

    def end(self, slot):
        self.seen.append(slot)


@pytest.mark.parametrize("inline_ms", [0, 1000])
@pytest.mark.parametrize("kind", [FakeRunner, Quoting])
def test_what_loads_and_runs_is_noted(tmp_path, inline_ms, kind):
    async def main():
        notes = Notes()
        engine = EngineCore(
            fakes.settings(tmp_path, inline_ms=inline_ms),
            load=lambda version, device: Loaded(kind(), MATRIX),
            notes=notes,
        )
        engine.load(to_load())
        await ready(engine)
        teach(engine)

        await asyncio.gather(
            InProcessEngineClient(engine).predict(
                PredictionCall(KEY, rows(1, 2), timeout_s=5)
            ),
            return_exceptions=True,
        )

        assert notes.seen == [
            ("doubler v1", 0, 0, True),
            1,
            ("doubler v1", 2, 1, False),
            3,
        ]

    run(main())


def test_the_status_counts_calls_and_knows_the_time_of_a_row(tmp_path):
    async def main():
        engine = EngineCore(
            fakes.settings(tmp_path),
            load=lambda version, device: Loaded(FakeRunner(), MATRIX),
        )
        engine.load(to_load())
        assert engine.status().versions[0].ready_at == 0
        await ready(engine)
        client = InProcessEngineClient(engine)
        assert engine.status().versions[0].single_row_s == 0

        await client.predict(PredictionCall(KEY, rows(1), timeout_s=5))
        await client.predict(PredictionCall(KEY, rows(1, 2, 3), timeout_s=5))

        status = engine.status().versions[0]
        assert (status.calls, status.rows) == (2, 4)
        assert 0 < status.single_row_s < 1
        assert status.ready_at > 1_700_000_000

    run(main())
