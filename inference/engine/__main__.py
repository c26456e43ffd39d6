"""Run one engine: `python -m inference.engine --device cpu`."""

import argparse
import os
import sys

from inference.engine import process
from inference.engine import settings as engine_settings
from inference.engine.settings import InvalidSettings


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m inference.engine", description="Run models on one device."
    )
    parser.add_argument("--device", help="cpu, cuda:0 and so on, or auto")
    arguments = parser.parse_args()
    environ = dict(os.environ)
    if arguments.device:
        environ["MODELYARD_ENGINE_DEVICE"] = arguments.device
    try:
        settings = engine_settings.from_environment(environ)
    except InvalidSettings as error:
        sys.stderr.write(f"{error}\n")
        return os.EX_CONFIG
    return process.run(settings)


if __name__ == "__main__":
    sys.exit(main())
