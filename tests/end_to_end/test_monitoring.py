"""What a real installation shows to a real Prometheus."""

import shutil
import subprocess
import sys
import threading

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from inference.metrics.table import METRICS
from tests.config.monitoring.queries import needs_promtool
from tests.end_to_end.conftest import ROOT
from tests.waiting import wait_until

pytestmark = pytest.mark.processes

PROCESSES = {
    *("gateway", "host", "internal", "site", "controller", "worker", "beat"),
}


def metrics(modelyard):
    return httpx.get(modelyard.demo["metrics_url"], timeout=60).text


def shown(modelyard):
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(metrics(modelyard))
        for sample in family.samples
    }


def test_every_process_and_dependency_is_up(modelyard):
    def seen():
        found = shown(modelyard)
        up = {key[1] for key in found if key[0].endswith("process_up")}
        down = [
            key
            for key, value in found.items()
            if key[0].endswith(("process_up", "dependency_up")) and not value
        ]
        known = {key[1] for key in found if key[0].endswith("dependency_up")}
        return up == PROCESSES and len(known) == 3 and not down

    wait_until(seen, what="a report of every process")


@needs_promtool
def test_promtool_finds_nothing_to_mend(modelyard):
    text = metrics(modelyard)

    ran = subprocess.run(
        ["promtool", "check", "metrics"],
        input=text,
        capture_output=True,
        text=True,
        check=False,
    )

    assert (ran.returncode, ran.stdout + ran.stderr) == (0, "")
    names = {
        line.split()[2].removesuffix("_total").removeprefix("modelyard_")
        for line in text.splitlines()
        if line.startswith("# TYPE")
    }
    assert names <= METRICS.keys()


@pytest.mark.skipif(
    shutil.which("prometheus") is None, reason="Prometheus is not installed"
)
def test_every_panel_has_data(modelyard):
    over = threading.Event()

    def call():
        with httpx.Client(base_url=modelyard.demo["base_url"], timeout=60) as client:
            while not over.wait(0.3):
                for body in ({"instances": modelyard.rows("breast-cancer")}, {}):
                    path = "/api/v1/models/breast-cancer/predict"
                    client.post(path, json=body, headers=modelyard.headers())
                client.get("/admin/login/")

    calls = threading.Thread(target=call)
    calls.start()
    try:
        tried = subprocess.run(
            [
                sys.executable,
                "deploy/monitoring/try.py",
                "--target",
                httpx.URL(modelyard.demo["metrics_url"]).netloc.decode(),
            ],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
    finally:
        over.set()
        calls.join()

    assert tried.returncode == 0, tried.stdout
