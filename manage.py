#!/usr/bin/env python
"""Run Modelyard's management commands."""

import os
import sys
from pathlib import Path

if __name__ == "__main__":
    # platform/ is a source root that holds the one package `config`.
    sys.path.append(str(Path(__file__).resolve().parent / "platform"))
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
    from django.core.management import execute_from_command_line

    execute_from_command_line(sys.argv)
