"""Test generated clients, clients of other projects, and linters of our document."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.end_to_end.conftest import ROOT

SOURCES = ROOT / "tests" / "foreign_clients"
SNIPPETS = ROOT / "accounts" / "static" / "portal" / "snippets.js"
TOOLS = ("node", "npm")
# The oldest Node that the generators support.
_OLDEST_NODE = 20
_GENERATORS = (
    "openapi-typescript openapi.json -o openapi-typescript/schema.d.ts",
    "openapi-ts -i ./openapi.json -o ./hey-api -c @hey-api/client-fetch",
    "orval --config ./orval.config.cjs",
)
CLIENTS = {
    "openapi-typescript": ["node", "build/openapi_typescript.js"],
    "hey-api": ["node", "build/hey_api.js"],
    "orval": ["node", "build/orval_client.js"],
    "openapi-python-client": [sys.executable, "python_client.py"],
    "aiohttp": [sys.executable, "aiohttp_client.py"],
}


def _why_not():
    """Return what is missing on this machine; an empty text if nothing is."""
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing:
        return f"{' and '.join(missing)} not installed: no foreign client was tried"
    version = subprocess.run(["node", "--version"], capture_output=True, text=True)
    if int(re.search(r"\d+", version.stdout)[0]) < _OLDEST_NODE:
        return f"Node {version.stdout.strip()} is too old: no foreign client was tried"
    return ""


pytestmark = pytest.mark.processes


def _installed(pins, install):
    """Return the folder with a file's pinned packages, installed on first use."""
    digest = hashlib.sha256((SOURCES / pins).read_bytes()).hexdigest()[:16]
    folder = ROOT / ".cache" / "foreign_clients" / digest
    if not (folder / "complete").exists():
        folder.mkdir(parents=True, exist_ok=True)
        install(folder)
        (folder / "complete").touch()
    return folder


def _install_by_npm(folder):
    for name in ("package.json", "package-lock.json"):
        shutil.copy(SOURCES / name, folder)
    _run(["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"], folder)


def _install_by_pip(folder):
    options = "--no-deps --no-compile --quiet --disable-pip-version-check --retries 1"
    where = ["--upgrade", "--target", folder, "--requirement", SOURCES / "kserve.txt"]
    done = subprocess.run(
        [sys.executable, "-m", "pip", "install", *options.split(), *where],
        capture_output=True,
        text=True,
        timeout=600,
    )
    # If pip reached a registry, it lists the versions that exist.
    if "(from versions: none)" in done.stderr:
        pytest.skip("pip reaches no registry: KServe's client was not tried")
    assert done.returncode == 0, done.stderr[-6000:]


def _run(command, folder, **environment):
    done = subprocess.run(
        command,
        cwd=folder,
        env=os.environ
        | {"REDOCLY_TELEMETRY": "off", "REDOCLY_SUPPRESS_UPDATE_NOTICE": "true"}
        | environment,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]
    return done.stdout


def _tool(command):
    name, *arguments = command.split()
    return [f"node_modules/.bin/{name}", *arguments]


@pytest.fixture(scope="module")
def folder(modelyard, tmp_path_factory):
    """A folder with the served document, and the clients generated from it."""
    if why_not := _why_not():
        pytest.skip(why_not)
    folder = tmp_path_factory.mktemp("foreign") / "clients"
    shutil.copytree(SOURCES, folder)
    shutil.copytree(SNIPPETS.parent, folder / "portal")
    (folder / "portal" / "package.json").write_text('{"type": "module"}')
    installed = _installed("package-lock.json", _install_by_npm)
    (folder / "node_modules").symlink_to(installed / "node_modules")
    answer = modelyard.client.get("/api/schema/", headers=modelyard.headers())
    (folder / "openapi.json").write_bytes(answer.content)
    return folder


@pytest.fixture(scope="module")
def generated(modelyard, folder):
    """Generate all clients, and check the types of the code that uses them."""
    url = modelyard.demo["base_url"]
    for generator in _GENERATORS:
        _run(_tool(generator), folder, MODELYARD_URL=url)
    _run(_tool("tsc -p tsconfig.json"), folder)
    maker = Path(sys.executable).with_name("openapi-python-client")
    where = ["--path", "openapi.json", "--output-path", "python"]
    _run([maker, "generate", *where, "--meta", "none"], folder)
    return folder


@pytest.fixture(scope="module")
def environment(modelyard):
    rows = modelyard.rows("diabetes")
    return {
        "MODELYARD_URL": modelyard.demo["base_url"],
        "MODELYARD_GRPC": modelyard.demo["grpc_target"],
        "MODELYARD_KEY": modelyard.demo["bench_api_key"],
        "MODELYARD_ROWS": json.dumps([_values(row) for row in rows]),
    }


def _values(row):
    return list(row.values()) if isinstance(row, dict) else row


@pytest.mark.parametrize("client", CLIENTS)
def test_a_client_predicts_explains_uploads_and_reads_a_job(
    modelyard, generated, environment, client
):
    predicted = modelyard.predict("diabetes", instances=modelyard.rows("diabetes"))

    report = json.loads(_run(CLIENTS[client], generated, **environment))

    features = report.pop("features")
    assert len(set(features)) == 10
    assert "body_mass_index" in features
    assert report == {
        "models": sorted(modelyard.demo["models"]),
        "prediction": pytest.approx(predicted.json()["predictions"][0]),
        "badRow": 1,
        "badField": "age",
        "method": "gradient",
        "stored": True,
        "status": "completed",
        "results": len(modelyard.rows("diabetes")),
        "refused": "NOT_FOUND",
    }


def test_kserves_client_predicts_by_every_protocol_it_speaks(modelyard, environment):
    rows = modelyard.rows("diabetes")
    predicted = modelyard.predict("diabetes", instances=rows).json()["predictions"]
    packages = _installed("kserve.txt", _install_by_pip)

    found = json.loads(
        _run(
            [sys.executable, "kserve_client.py"],
            SOURCES,
            PYTHONPATH=str(packages),
            **environment,
        )
    )

    same = pytest.approx(predicted)
    up = {"live": True, "ready": True, "modelReady": True}
    both = up | {"asJson": same, "asBytes": same}
    assert found == {
        "rest": both | {"otherReady": False},
        "grpc": both,
        "own": {"predictions": same, "badRow": 1, "method": "gradient"},
        "refused": ["NOT_FOUND", "NOT_FOUND"],
    }


@pytest.mark.parametrize(
    "linter",
    [
        "redocly lint openapi.json --config redocly.yaml --format json",
        "spectral lint openapi.json --ruleset spectral.yaml -F hint -f json -q",
    ],
    ids=["redocly", "spectral"],
)
def test_linters_find_nothing(folder, linter):
    found = json.loads(_run(_tool(linter), folder))

    assert (found if isinstance(found, list) else found["problems"]) == []


@pytest.mark.parametrize("language", ["curl", "python", "javascript"])
def test_the_portals_snippets_run(modelyard, folder, language):
    demo = modelyard.demo
    # Quoting may break these: both quotes, a backslash, another script.
    text = 'It\'s "grün" \\ 你好'
    call = {
        "method": "POST",
        "url": f"{demo['base_url']}/api/v1/models/language/predict",
        "key": demo["api_key"],
        "body": json.dumps({"instances": [{"text": text}], "options": {"top_k": 2}}),
    }
    snippets = _run(["node", "snippets.mjs"], folder, MODELYARD_CALL=json.dumps(call))
    snippet = json.loads(snippets)[language]
    run = {
        "curl": ["bash", "-ec", snippet],
        "python": [sys.executable, "-c", snippet],
        "javascript": ["node", "--input-type=module", "-e", snippet],
    }

    answer = _run(run[language], folder)

    assert "scores" in answer
    assert "Traceback" not in answer
