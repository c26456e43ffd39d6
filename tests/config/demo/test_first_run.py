import os
import subprocess
import sys

from tests.config.processes.test_supervisor import alive
from tests.waiting import wait_until

SET_UP = """
import sys; sys.path[:0] = [".", "platform"]
import django; django.setup()
from pathlib import Path
from django.conf import settings
from config.demo import first_run
settings.HOME.prepare()
settings.BASE_DIR = Path({folder!r})
first_run._train(lambda line: print(line, flush=True))
"""


def test_training_ends_when_the_set_up_is_killed(tmp_path):
    # Two trainings at once would register every version twice.
    examples = tmp_path / "examples"
    examples.mkdir()
    (examples / "__main__.py").write_text(
        "import os, time; print(os.getpid(), flush=True); time.sleep(300)"
    )
    environment = {
        **os.environ,
        "MODELYARD_HOME": str(tmp_path / "home"),
        "DJANGO_SETTINGS_MODULE": "config.settings",
    }
    with subprocess.Popen(
        [sys.executable, "-c", SET_UP.format(folder=str(tmp_path))],
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    ) as set_up:
        assert set_up.stdout is not None
        training = int(set_up.stdout.readline())

        set_up.kill()

    wait_until(lambda: not alive(training))
