"""Run this machine's engine processes: `python -m inference.host --devices cpu`."""

import argparse
import logging
import os
import signal
import sys

from inference.engine import settings as engine_settings
from inference.engine.settings import InvalidSettings
from inference.host.host import EngineHost
from inference.installation import logs
from inference.installation.home import Home

_EX_CONFIG = 78


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
        return _EX_CONFIG
    level = settings.log_level.upper()
    known = level in logging.getLevelNamesMapping()
    logs.configure("host", level=level if known else "INFO")
    home = Home(settings.root)
    home.prepare()
    host = EngineHost(
        home, devices, settings, logs_to_stdout=os.environ.get("LOG_TO") == "stdout"
    )
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: host.request_stop())
    host.run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
