"""A host that is told so lets zygotes and engine processes run new code."""

import signal

import psutil
import pytest

from tests.inference.host.plant import Plant, save_model, version
from tests.waiting import wait_until

pytestmark = pytest.mark.processes


def zygotes(plant):
    return {
        child.pid
        for child in psutil.Process(plant.host.pid).children()
        if "inference.engine.zygote" in " ".join(child.cmdline())
    }


def test_renewal_replaces_each_process_and_none_counts_as_dead(tmp_path):
    model = version(save_model(tmp_path / "model"), "answers")
    plant = Plant(tmp_path / "home")
    try:
        plant.place(model)
        plant.wait_ready(model)
        before, old_zygotes = plant.pid(model), zygotes(plant)
        old_engine = next(it for it in plant.report().processes if it.name == "cpu")

        plant.host.send_signal(signal.SIGHUP)
        wait_until(lambda: plant.process(model).pid not in (0, before))
        plant.wait_ready(model)
        wait_until(
            lambda: all(
                it.pid not in (0, before, old_engine.pid)
                for it in plant.report().processes
            )
        )

        assert plant.ask(model, "answer")
        assert len(zygotes(plant)) == 1
        assert not zygotes(plant) & old_zygotes
        assert plant.report().deaths == ()
    finally:
        plant.close()
