"""Run this machine's engine processes: `python -m inference.host --devices cpu`."""

import argparse
import fcntl
import logging
import os
import signal
import sys

from inference.engine import settings as engine_settings
from inference.engine.settings import InvalidSettings
from inference.host.host import EngineHost
from inference.installation.home import Home
from inference.installation.log_lines import logs
from inference.installation.preparing import prepare_or_exit


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m inference.host",
        description="Run the engine processes of this machine.",
    )
    parser.add_argument(
        "--devices", required=True, help="names with commas between: cpu, cuda:0"
    )
    devices = parser.parse_args().devices.split(",")
    try:
        settings = engine_settings.from_environment()
    except InvalidSettings as error:
        sys.stderr.write(f"{error}\n")
        return os.EX_CONFIG
    level = settings.log_level.upper()
    known = level in logging.getLevelNamesMapping()
    logs.configure("host", level=level if known else "INFO")
    home = Home(settings.root)
    prepare_or_exit(home, os.environ)
    # `modelyard run host` holds `host.lock` already.
    lock = (home.run / "engines.lock").open("w")
    try:
        # Until this process ends.
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        sys.stderr.write(f"Another host runs in {home.root}.\n")
        return os.EX_CONFIG
    host = EngineHost(
        home, devices, settings, logs_to_stdout=os.environ.get("LOG_TO") == "stdout"
    )
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: host.request_stop())
    signal.signal(signal.SIGHUP, lambda *_: host.request_renewal())
    host.run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
