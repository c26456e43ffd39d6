"""One Python model that does whatever a row tells it to."""

import contextlib
import ctypes
import locale
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import mlflow
import numpy as np
from mlflow.models import ModelConfig

_kept = []


def _exit():
    sys.stderr.write("the last words of the model\n")
    os._exit(3)


def _segfault():
    ctypes.string_at(0)


def _stop():
    os.kill(os.getpid(), signal.SIGSTOP)


def _fork_children():
    for _ in range(3):
        _kept.append(
            subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        )


def _run_away():
    command = [sys.executable, "-c", "import time; time.sleep(600)"]
    _kept.append(subprocess.Popen(command, start_new_session=True))


def _fork():
    if os.fork() == 0:
        time.sleep(600)
        os._exit(0)


def _fork_bomb():
    while True:
        _fork_children()


def _ignore_sigterm():
    # The event loop has a handler; this blocks the signal in the whole process.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    ctypes.CDLL(None).signal(signal.SIGTERM, 1)


def _fill_scratch():
    for number in range(64):
        with open(Path(os.environ["TMPDIR"], f"large-{number}"), "wb") as file:
            file.write(b"\1" * 1_000_000)
        time.sleep(0.2)


def _write_large_file():
    with open(Path(os.environ["TMPDIR"], "large"), "wb") as file:
        for _ in range(64):
            file.write(b"\1" * 1_000_000)


def _open_files():
    for _ in range(10_000):
        _kept.append(open(os.devnull))  # noqa: SIM115


def _print_much():
    line = "x" * 1_000_000
    for _ in range(1000):
        sys.stdout.write(line)
        sys.stdout.flush()


def _allocate_terabyte():
    np.ones(1 << 37)


def _grow():
    for _ in range(400):
        _kept.append(b"\1" * 10_000_000)
        time.sleep(0.01)


def _threads():
    def spin():
        while True:
            time.sleep(1)

    for _ in range(200):
        threading.Thread(target=spin, daemon=False).start()


def _change_process():
    os.environ["PATH"] = os.environ["HOME"] = "/nowhere"
    sys.path.insert(0, "/nowhere")
    with contextlib.suppress(locale.Error):
        locale.setlocale(locale.LC_ALL, "C")
    np.seterr(all="raise")
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))


def _hold():
    time.sleep(3600)


def _spin():
    while True:
        pass


def _raise():
    raise ValueError("the value of this row is secret-4711")


def _sys_exit():
    sys.exit(7)


def _write_home():
    Path.home().joinpath("note.txt").write_text("here")


def _leak():
    _kept.append(b"\1" * 1_000_000)


DEEDS = {
    name.removeprefix("_"): deed
    for name, deed in list(globals().items())
    if name.startswith("_") and callable(deed) and not name.startswith("__")
}


class Model(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        answers = []
        for do in model_input["do"]:
            name, _, rest = str(do).partition(" ")
            if name == "sleep":
                time.sleep(float(rest))
            elif name == "pid":
                answers.append(str(os.getpid()))
                continue
            elif name in DEEDS:
                DEEDS[name]()
            elif at_load == "made_up" and not is_known(name):
                _exit()
            answers.append(f"did {do}")
        return answers * 2 if "too_many" in set(model_input["do"]) else answers


def is_known(name):
    """Return whether a text is one that a test sends, or of no row at all."""
    return name in ("answer", "")


at_load = ModelConfig(development_config={"at_load": ""}).get("at_load")
if at_load.startswith("import "):
    __import__(at_load.removeprefix("import "))
elif at_load.startswith("sleep "):
    time.sleep(float(at_load.removeprefix("sleep ")))
elif at_load and at_load != "made_up":
    DEEDS[at_load]()
mlflow.models.set_model(Model())
