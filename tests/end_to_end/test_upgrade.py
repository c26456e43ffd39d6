"""Replace all processes by those of new code while they are called."""

import contextlib
import os
import signal
import time

import psutil
import pytest

from tests.callers import Callers
from tests.waiting import wait_until

pytestmark = [
    pytest.mark.processes,
    pytest.mark.xdist_group("modelyard"),
    # On a busy machine it may have to set up the demo, and takes minutes itself.
    pytest.mark.timeout(900),
]

MODELS = ("breast-cancer", "digits", "diabetes")


def renewable(supervisor, *, but=()):
    """Return the ids of all processes but the host, which keeps its code."""
    found = set()
    for process in psutil.Process(supervisor).children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if not {"inference.host", *but} & {*process.cmdline()}:
                found.add(process.pid)
    return found


def lasting(supervisor):
    """Return how many processes there are whether or not somebody wants a drawing."""
    return len(renewable(supervisor, but=["explain.drawing"]))


def test_an_upgrade_replaces_every_process_and_no_call_fails(modelyard):
    supervisor = int((modelyard.installation.home / "supervisor.lock").read_text())
    before, count = renewable(supervisor), lasting(supervisor)

    login = f"{modelyard.demo['base_url']}/admin/login/"
    asks = [modelyard.asking(model) for model in MODELS]
    with Callers(*asks, lambda client: client.get(login)) as callers:
        time.sleep(1)
        os.kill(supervisor, signal.SIGHUP)
        wait_until(
            lambda: not before & renewable(supervisor),
            what="the end of every old process",
            timeout_s=240,
        )
        time.sleep(2)

    assert callers.failures == []
    assert callers.calls > 100
    wait_until(
        lambda: lasting(supervisor) >= count,
        what="as many processes as before",
    )
