"""Run Modelyard's commands: `modelyard COMMAND`, or `python -m config COMMAND`."""

import gc
import os
import sys

# Short names for operators. `manage.py check` stays Django's own check.
_COMMANDS = {"check": "check_installation", "demo": "quickstart"}


def main() -> None:
    name, *rest = sys.argv[1:] or ["help"]
    run(["modelyard", _COMMANDS.get(name, name), *rest])


def run(arguments: list[str]) -> None:
    """Run a management command by its full name; `arguments` is a whole argv."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
    # Imports leave next to nothing to collect, and looking for it takes a tenth of
    # their time.
    gc.set_threshold(50_000)
    from django.core.management import execute_from_command_line

    execute_from_command_line(arguments)
