"""Test to start twice, to start on a taken port, and to stop everything."""

import re
import socket

import pytest

from tests.end_to_end.conftest import PATIENCE_S, Installation, free_ports

pytestmark = pytest.mark.processes


def test_home_in_use_is_refused_with_a_clear_sentence(modelyard):
    second = Installation(modelyard.installation.home, free_ports())

    output = second.start().communicate(timeout=PATIENCE_S)[0]

    assert "already running" in output
    assert "Traceback" not in output


def test_port_in_use_is_refused_with_a_clear_sentence(tmp_path):
    port = free_ports()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", port))
        taken.listen()

        output = Installation(tmp_path, port).start().communicate(timeout=PATIENCE_S)[0]

    assert f"Port {port}" in output
    assert "MODELYARD_PORT=" in output
    assert "Traceback" not in output


def test_sigterm_ends_every_process(modelyard):
    assert modelyard.first_run.process_count >= 6
    assert modelyard.first_run.survivors == []


def test_the_card_names_the_demos_registry_and_everybody_who_may_sign_in(modelyard):
    card = "\n".join(modelyard.card)
    demo = modelyard.demo

    assert demo["mlflow_tracking_uri"] in card
    assert len(demo["staff"]) == 3
    for name, password in demo["staff"].items():
        assert f"{name} / {password}" in card


def test_it_says_what_took_the_time(modelyard):
    told = [
        [line for line in card if line.startswith("Ready after")]
        for card in (modelyard.first_run.card, modelyard.first_run.second_card)
    ]

    number = r"[\d.]+ s"
    assert re.fullmatch(
        f"Ready after {number}: database {number}, training {number}, "
        f"demo data {number}, start {number}.",
        told[0][0],
    )
    assert re.fullmatch(f"Ready after {number}: start {number}.", told[1][0])


def test_second_run_finds_everything_in_place_and_is_ready_soon(modelyard):
    lines = modelyard.first_run.second_card

    assert not any(line.startswith("✓") for line in lines), lines
    # The promise is ten seconds on an idle machine, where the whole setup takes a
    # minute.
    assert modelyard.first_run.second_took_s < modelyard.first_run.took_s / 2
