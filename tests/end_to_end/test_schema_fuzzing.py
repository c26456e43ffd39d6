"""Send generated requests for every operation of the OpenAPI document."""

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.processes

SEED = 20261120
# 503 and 504 are allowed: they say that we are busy, not that we failed.
CONFIGURATION = """
[checks]
not_a_server_error.expected-statuses = ["2xx", "3xx", "4xx", "503", "504"]
"""
_MAX_EXAMPLES = 4


def test_no_operation_answers_with_a_server_error(modelyard, tmp_path):
    (tmp_path / "schemathesis.toml").write_text(CONFIGURATION)
    demo = modelyard.demo
    # With the key, so the document has the models that this caller may call.
    headers = modelyard.headers(demo["bench_api_key"])
    schema = modelyard.client.get(
        "/api/schema/", headers=headers | {"Accept": "application/json"}
    )
    (tmp_path / "openapi.json").write_bytes(schema.content)

    run = subprocess.run(
        [
            Path(sys.executable).with_name("schemathesis"),
            *("--config-file", tmp_path / "schemathesis.toml"),
            *("run", tmp_path / "openapi.json", "--url", demo["base_url"]),
            *("--header", f"Authorization: {headers['Authorization']}"),
            *("--checks", "not_a_server_error"),
            *("--phases", "examples,coverage,fuzzing"),
            *("--max-examples", str(_MAX_EXAMPLES), "--seed", str(SEED)),
            # One thread: Hypothesis parses the lambdas that it shows, and Python may
            # fail to parse in two threads at once (python/cpython#106905).
            *("--workers", "1", "--continue-on-failure", "--no-color"),
            *("--request-timeout", "60", "--generation-database", "none"),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=800,
    )

    assert run.returncode == 0, run.stdout[-10_000:] + run.stderr[-2000:]
    assert schema.json()["paths"]
