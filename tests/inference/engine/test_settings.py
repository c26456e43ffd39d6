import pytest

from inference.engine import settings
from inference.engine.settings import InvalidSettings


def test_the_defaults_need_no_environment():
    made = settings.from_environment({})

    assert made.device == "cpu"
    assert made.max_queue_rows == 8192
    assert made.max_queue_bytes == 128 * 1024 * 1024
    assert made.max_wait_ms == 0


def test_the_environment_sets_each_field():
    made = settings.from_environment(
        {
            "MODELYARD_HOME": "/srv/modelyard",
            "MODELYARD_ENGINE_DEVICE": "cuda:1",
            "MODELYARD_ENGINE_MAX_BATCH_ROWS": "8",
            "MODELYARD_ENGINE_MAX_WAIT_MS": "1.5",
            "MODELYARD_ENGINE_PLUGINS": "a:x,b:y",
            "MODELYARD_ENGINE_WARM_PLUGINS": "false",
        }
    )

    assert made.home == "/srv/modelyard"
    assert made.name == "cuda-1"
    assert made.max_batch_rows == 8
    assert made.max_wait_ms == 1.5
    assert made.plugins == ("a:x", "b:y")
    assert made.warm_plugins is False


def test_plugins_can_be_turned_off():
    made = settings.from_environment({"MODELYARD_ENGINE_PLUGINS": ""})

    assert made.plugins == ()


@pytest.mark.parametrize("value", ["many", "0", "-1"])
def test_nonsense_is_refused_by_name(value):
    with pytest.raises(InvalidSettings, match=r"(?i)max_batch_rows"):
        settings.from_environment({"MODELYARD_ENGINE_MAX_BATCH_ROWS": value})
