"""Test which calls are logged, and what a line says of one."""

import json

import pytest
import structlog

from accounts.admission.networks import Networks
from inference.gateway.driver.call_log import CallLog
from inference.gateway.settings import from_environment
from tests.inference.gateway.plant import GOOD, Plant
from tests.inference.gateway.test_app import on_loop

BAD = b'{"instances": [{"a": "secret"}]}'


def logging_plant(folder, share, *, draw=lambda: 0.5):
    networks = Networks(("127.0.0.1",))
    return Plant(folder, calls=CallLog(share, trusted_proxies=networks, draw=draw))


def of_calls(logged):
    return [line for line in logged if line["event"] == "call"]


@on_loop
async def test_a_line_says_who_called_what_and_how_long_it_took(tmp_path):
    plant = logging_plant(tmp_path, 1.0)

    with structlog.testing.capture_logs() as logged:
        await plant.ask(headers={"x-request-id": "mine"})

    [line] = of_calls(logged)
    [event] = plant.events()
    assert line["request_id"] == "mine"
    assert (line["customer_id"], line["key_id"]) == (event.customer_id, event.key_id)
    assert (line["status"], line["rows"], line["model"]) == (200, 1, event.model)
    assert line["bytes_in"] == len(json.dumps(GOOD))
    assert line["bytes_out"] > 0
    assert line["every"]
    assert {"ms", "queue_ms", "compute_ms", "variant", "version", "client"} <= set(line)


@on_loop
async def test_of_a_share_errors_are_always_logged_and_no_payload_is(tmp_path):
    plant = logging_plant(tmp_path, 0.01)

    with structlog.testing.capture_logs() as logged:
        await plant.ask()
        await plant.ask(content=BAD)
        await plant.ask(headers={"authorization": "Bearer my_live_wrong"})

    refused, unknown = of_calls(logged)
    assert (refused["status"], refused["code"]) == (400, "INVALID_INPUT")
    # A client that errs again and again is summed up.
    assert not refused["every"]
    assert unknown["status"] == 401
    assert "secret" not in str(logged)


@on_loop
async def test_a_share_is_drawn_for_each_call(tmp_path):
    drawn = iter([0.2, 0.6, 0.4])
    plant = logging_plant(tmp_path, 0.5, draw=lambda: next(drawn))

    with structlog.testing.capture_logs() as logged:
        for _ in range(3):
            await plant.ask()

    assert len(of_calls(logged)) == 2


@on_loop
async def test_nothing_is_logged_unless_asked(tmp_path):
    plant = Plant(tmp_path)

    with structlog.testing.capture_logs() as logged:
        await plant.ask(content=BAD)

    assert of_calls(logged) == []


@pytest.mark.parametrize(
    ("text", "share"), [("", 0.0), ("off", 0.0), ("all", 1.0), ("0.01", 0.01)]
)
def test_the_share_is_a_setting(text, share):
    assert from_environment({"LOG_CALLS": text}).log_calls == share


@pytest.mark.parametrize("text", ["on", "0", "-1", "2", "nan"])
def test_another_share_is_refused_in_words(text):
    with pytest.raises(ValueError, match="LOG_CALLS is"):
        from_environment({"LOG_CALLS": text})
