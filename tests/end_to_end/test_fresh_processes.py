"""Replace the process of a version again and again while it is called."""

import json
import threading

import httpx
import pytest

from inference.installation.home import Home
from inference.placement import report_file
from tests.end_to_end.conftest import wait_for

pytestmark = pytest.mark.processes

MODEL = "breast-cancer"
CALLERS = 4
# Its process, and those that take over from it.
PROCESSES = 3
_SET = """
import json, sys
from registry import changes
from registry.models import RegisteredModel
model = RegisteredModel.objects.get(name="{model}")
model.process = json.loads('{process}')
changes.save(model, by=None, reason="a test")
"""


def let_run(modelyard, **process):
    """Say how the processes of the model are run."""
    code = _SET.format(model=MODEL, process=json.dumps(process))
    done = modelyard.installation.manage("shell", "-c", code)
    assert done.returncode == 0, done.stderr


def own_processes(modelyard):
    """Return the ids of the model's own processes that run now."""
    report = report_file.read(Home(modelyard.installation.home).host_report)
    return {
        one.pid
        for one in report.processes
        if one.name.startswith(MODEL[:10]) and one.state == "running"
    }


class Callers:
    """Call the model all the time, and count the statuses."""

    def __init__(self, modelyard):
        self._modelyard = modelyard
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._call) for _ in range(CALLERS)]
        self.failures = []
        self.calls = 0

    def _call(self):
        running = self._modelyard
        body = {"instances": running.rows(MODEL)[:1]}
        headers = running.headers(running.demo["bench_api_key"])
        url = f"{running.demo['base_url']}/api/v1/models/{MODEL}/predict"
        with httpx.Client(timeout=60) as client:
            while not self._over.is_set():
                answer = client.post(url, json=body, headers=headers)
                self.calls += 1
                if answer.status_code != 200:
                    self.failures.append(answer.text)

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._over.set()
        for thread in self._threads:
            thread.join()


def test_fresh_processes_take_over_and_no_call_fails(modelyard):
    before = own_processes(modelyard)
    seen = set()

    def enough():
        seen.update(own_processes(modelyard) - before)
        return len(seen) >= PROCESSES

    with Callers(modelyard) as callers:
        # From the engine of the device to a process of its own, then to fresh ones.
        let_run(modelyard, isolation="own", recycle_after_calls=300)
        wait_for(enough, what=f"process number {PROCESSES}", timeout_s=120)
        let_run(modelyard)
        # And back to the engine of the device.
        wait_for(
            lambda: own_processes(modelyard) <= before,
            what="the end of its own processes",
            timeout_s=60,
        )

    assert callers.failures == []
    assert callers.calls > 300 * (PROCESSES - 1)
