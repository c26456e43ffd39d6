"""The examples of docs/protocols.md, run as they stand there."""

import importlib.util
import json
import os
import re
import subprocess
import sys
from urllib.parse import urlsplit

import pytest

from tests.end_to_end.conftest import ROOT

pytestmark = [
    pytest.mark.processes,
    pytest.mark.timeout(900),
    pytest.mark.xdist_group("modelyard"),
]

TEXT = (ROOT / "docs" / "protocols.md").read_text()
# What an answer of each protocol holds.
ANSWERS = ('"predictions"', '"outputs"', '"embeddings"', "event: end")


def examples(language):
    return re.findall(rf"^```{language}\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("command", examples("sh"))
def test_commands_are_answered(modelyard, command):
    demo = modelyard.demo
    environment = os.environ | {"URL": demo["base_url"], "KEY": demo["api_key"]}

    run = subprocess.run(
        ["bash", "-ec", command.replace("curl ", "curl -S --fail-with-body ")],
        env=environment,
        capture_output=True,
        text=True,
        timeout=180,
    )

    assert run.returncode == 0, run.stdout + run.stderr
    assert any(part in run.stdout for part in ANSWERS), run.stdout


@pytest.mark.parametrize("program", examples("python"))
def test_programs_run(modelyard, program):
    if "tritonclient" in program and importlib.util.find_spec("tritonclient") is None:
        pytest.skip("tritonclient is not installed")
    demo = modelyard.demo
    program = program.replace("127.0.0.1:8000", urlsplit(demo["base_url"]).netloc)
    program = program.replace("127.0.0.1:8002", demo.get("grpc_target", ""))
    head = f"url, key = {demo['base_url']!r}, {demo['api_key']!r}\nimport numpy as np\n"
    head += "ROW = [59, 2, 32.1, 101, 157, 93.2, 38, 4, 4.86, 87]\n"

    run = subprocess.run(
        [sys.executable, "-c", head + program],
        capture_output=True,
        text=True,
        timeout=180,
    )

    assert run.returncode == 0, run.stderr


def test_every_protocol_has_an_example():
    for section in re.split(r"^## ", TEXT, flags=re.MULTILINE)[1:]:
        assert "```sh" in section or "```python" in section, section.split("\n")[0]


def test_events_of_a_stream_are_as_they_are_written(modelyard):
    written = re.search(r"^id: 0\n.*?(?=```)", TEXT, re.MULTILINE | re.DOTALL)[0]

    stream = modelyard.client.post(
        "/api/v1/models/writer/stream",
        json={"instances": [{"prompt": "Please "}]},
        headers=modelyard.headers(),
    )

    assert forms(stream.text) == forms(written)


@pytest.mark.parametrize(
    ("model", "name", "datatype", "shape"),
    [
        ("breast-cancer", "output", "FP32", [-1, 2]),
        ("diabetes", "output", "FP32", [-1]),
        ("digits", "output", "FP32", [-1, 10]),
        ("language", "output", "FP32", [-1, 24]),
        ("sentences", "output", "FP32", [-1, 48]),
        ("writer", "output", "BYTES", [-1]),
    ],
)
def test_metadata_tells_the_outputs_of_every_model(
    modelyard, model, name, datatype, shape
):
    facts = modelyard.client.get(f"/v2/models/{model}", headers=modelyard.headers())

    assert facts.json()["outputs"] == [
        {"name": name, "datatype": datatype, "shape": shape}
    ]


def test_one_version_is_told_everywhere(modelyard):
    document = modelyard.client.get("/api/schema/?format=json").json()
    server = modelyard.client.get("/v2").json()

    assert document["info"]["version"] == server["version"]


def forms(events):
    """The kinds of events in their order, each with the names of its members."""
    found = []
    for event in events.strip().split("\n\n"):
        first, data = event.split("\n")
        kind = "chunk" if first.startswith("id: ") else first
        members = json.loads(data.removeprefix("data: "))
        form = (
            kind,
            {
                name: sorted(value) if isinstance(value, dict) else type(value)
                for name, value in members.items()
            },
        )
        if form not in found:
            found.append(form)
    return found
