"""Run the samples of the documents that call Modelyard, unchanged."""

import importlib.util
import io
import json
import os
import re
import subprocess
import sys
from itertools import groupby
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.documented_samples import logs_a_model, samples
from tests.end_to_end.conftest import ROOT

pytestmark = pytest.mark.processes

TEXT = (ROOT / "docs" / "protocols.md").read_text()
COMMANDS = {
    document: [sample.text for sample in group]
    for document, group in groupby(samples("sh"), key=lambda sample: sample.document)
}
PROGRAMS = [sample for sample in samples("python") if not logs_a_model(sample)]


@pytest.fixture
def checkout(modelyard, tmp_path):
    """A folder like the root of a checkout, with the files that samples send."""
    (tmp_path / ".venv").symlink_to(sys.prefix)
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    (tmp_path / "var" / "mlflow").mkdir(parents=True)
    rows = modelyard.rows("breast-cancer")
    lines = [rows[0].keys(), *(row.values() for row in rows)]
    text = "\n".join(",".join(map(str, line)) for line in lines)
    (tmp_path / "rows.csv").write_text(text)
    for name in ("three.png", "seven.jpg"):
        (tmp_path / name).write_bytes(_picture(name.partition(".")[2]))
    return tmp_path


def _picture(kind):
    import PIL.Image

    file = io.BytesIO()
    kind = {"jpg": "jpeg"}.get(kind, kind)
    PIL.Image.effect_noise((8, 8), 60).save(file, format=kind)
    return file.getvalue()


@pytest.mark.parametrize("document", COMMANDS)
def test_commands_are_answered(modelyard, checkout, document):
    demo = modelyard.demo
    environment = {"URL": demo["base_url"], "KEY": demo["bench_api_key"]}

    for command in COMMANDS[document]:
        run = subprocess.run(
            ["bash", "-ec", command.replace("curl ", "curl -S --fail-with-body ")],
            cwd=checkout,
            env=os.environ | environment,
            capture_output=True,
            text=True,
            timeout=600,
        )

        assert run.returncode == 0, run.stdout + run.stderr
        assert run.stdout.strip()
        # The next command may use members of this answer, such as $UPLOAD_URL.
        if run.stdout.startswith("{") and "\n" not in run.stdout.strip():
            for name, value in _first_object(run.stdout).items():
                environment[name.upper()] = str(value)


def _first_object(text):
    return json.JSONDecoder().raw_decode(text)[0]


def test_the_documented_registry_is_the_demos(modelyard):
    [command] = COMMANDS["examples/README.md"]
    documented = re.search(r'"(sqlite:.*)"', command)[1]

    meant = documented.replace("$PWD/var", str(modelyard.installation.home))

    assert meant == modelyard.demo["mlflow_tracking_uri"]


@pytest.mark.parametrize(
    "sample", PROGRAMS, ids=lambda sample: f"{Path(sample.document).stem}:{sample.line}"
)
def test_programs_run(modelyard, sample):
    program = sample.text
    if "tritonclient" in program and importlib.util.find_spec("tritonclient") is None:
        pytest.skip("tritonclient is not installed")
    demo = modelyard.demo
    program = program.replace("127.0.0.1:8000", urlsplit(demo["base_url"]).netloc)
    program = program.replace("127.0.0.1:8002", demo.get("grpc_target", ""))
    names = f"url, key = {demo['base_url']!r}, {demo['api_key']!r}\n"

    run = subprocess.run(
        [sys.executable, "-c", names + program],
        capture_output=True,
        text=True,
        timeout=600,
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
    """Return the kinds of events in their order, each with the names of its members."""
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
