import msgspec

from inference.engine.in_process import InProcessEngineClient
from inference.engine.wire.calls import PredictionCall
from inference.gateway.metrics import engines as engine_metrics
from tests.inference.engine.fakes import (
    KEY,
    FakeRunner,
    loaded_engine,
    rows,
    run,
    teach,
)
from tests.inference.gateway.metrics.test_calls import text


def written(engines):
    return text(engine_metrics.of_engines(engines))


def status_of_an_engine(home):
    async def main():
        engine = await loaded_engine(home, FakeRunner())
        teach(engine)
        await InProcessEngineClient(engine).predict(
            PredictionCall(KEY, rows(1, 2), timeout_s=5)
        )
        return msgspec.to_builtins(msgspec.structs.asdict(engine.status()))

    return run(main())


def test_everything_that_an_engine_counts_is_shown(tmp_path):
    status = status_of_an_engine(tmp_path)

    found = written({"cpu": status})

    shown = {line.split("{")[0] for line in found.splitlines() if line[0] != "#"}
    for name in status["counters"]:
        if name.startswith("refused_"):
            assert f'bound="{name.removeprefix("refused_")}"' in found
        elif name.endswith("_us"):
            name = name.removesuffix("_us")
            assert f"modelyard_engine_{name}_seconds_total" in shown
        else:
            names = {f"modelyard_engine_{name}", f"modelyard_engine_{name}_total"}
            assert names & shown, name
    assert 'modelyard_engine_rows_total{engine="cpu"} 2.0' in found
    assert 'modelyard_engine_busy_seconds_total{engine="cpu"} ' in found
    labels = 'engine="cpu",model="doubler",state="ready",version="1"'
    assert f"modelyard_version_state{{{labels}}} 1.0" in found
    of_version = 'engine="cpu",model="doubler",version="1"'
    assert f"modelyard_version_batches_total{{{of_version}}} 1.0" in found
    assert 'modelyard_engine_batch_rows_bucket{engine="cpu",le="1"} 0.0' in found
    assert 'modelyard_engine_batch_rows_bucket{engine="cpu",le="2"} 1.0' in found
    assert 'modelyard_engine_queue_seconds_count{engine="cpu"} 1.0' in found


def test_each_family_is_named_once_however_many_engines_there_are(tmp_path):
    status = status_of_an_engine(tmp_path)

    found = written({"cpu": status, "cuda-0": status})

    types = [line for line in found.splitlines() if line.startswith("# TYPE")]
    assert len(types) == len(set(types))
    assert 'modelyard_engine_batches_total{engine="cuda-0"} 1.0' in found


def test_without_engines_there_is_nothing_to_show():
    assert written({}) == ""


def test_the_memory_of_a_device_is_shown_once_it_is_open(tmp_path):
    status = status_of_an_engine(tmp_path)
    memory = {"title": "A", "total_bytes": 9, "used_bytes": 5, "reserved_bytes": 3}

    found = written(
        {
            "cpu": status | {"device_status": None},
            "cuda-0": status | {"device_status": memory},
        }
    )

    lines = [line for line in found.splitlines() if "device_memory_bytes{" in line]
    assert lines == [
        'modelyard_engine_device_memory_bytes{engine="cuda-0",kind="total"} 9.0',
        'modelyard_engine_device_memory_bytes{engine="cuda-0",kind="used"} 5.0',
        'modelyard_engine_device_memory_bytes{engine="cuda-0",kind="reserved"} 3.0',
    ]
