"""Replace the process of a version again and again while it is called."""

import json

import pytest

from inference.installation.home import Home
from inference.placement import report_file
from tests.callers import Callers
from tests.waiting import wait_until

pytestmark = pytest.mark.processes

MODEL = "breast-cancer"
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


def test_fresh_processes_take_over_and_no_call_fails(modelyard):
    before = own_processes(modelyard)
    seen = set()

    def enough():
        seen.update(own_processes(modelyard) - before)
        return len(seen) >= PROCESSES

    ask = modelyard.asking(MODEL)
    with Callers(ask, ask, pause_s=0) as callers:
        # From the engine of the device to a process of its own, then to fresh ones.
        let_run(modelyard, isolation="own", recycle_after_calls=300)
        wait_until(enough, what=f"process number {PROCESSES}", timeout_s=240)
        let_run(modelyard)
        # And back to the engine of the device.
        wait_until(
            lambda: own_processes(modelyard) <= before,
            what="the end of its own processes",
            timeout_s=60,
        )

    assert callers.failures == []
    assert callers.calls > 300 * (PROCESSES - 1)
