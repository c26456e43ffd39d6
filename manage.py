#!/usr/bin/env python
"""Run a management command in a checkout; operators use `modelyard`."""

import sys
from pathlib import Path

if __name__ == "__main__":
    # platform/ is a source root that holds the one package `config`.
    sys.path.append(str(Path(__file__).resolve().parent / "platform"))
    from config.command_line import run

    run(sys.argv)
