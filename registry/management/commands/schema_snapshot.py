"""`modelyard schema_snapshot`: write what all routes promise callers, or check it."""

import argparse
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from registry import schema_gate
from registry.rules import schema_snapshots


class Command(BaseCommand):
    help = "Write inputs, outputs, parameters and labels of all routes as JSON."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        one = parser.add_mutually_exclusive_group()
        one.add_argument(
            "file", nargs="?", type=Path, help="where to write it; else to the terminal"
        )
        one.add_argument(
            "--check",
            type=Path,
            metavar="FILE",
            help="exit with 1 if a route breaks callers of what FILE holds",
        )

    def handle(self, *_: Any, **options: Any) -> None:
        published = schema_gate.published_contracts()
        try:
            if options["check"] is not None:
                earlier = schema_snapshots.read(options["check"].read_text("utf-8"))
                self._check(schema_snapshots.compare(earlier, published))
            elif options["file"] is not None:
                options["file"].write_text(schema_snapshots.write(published), "utf-8")
            else:
                self.stdout.write(schema_snapshots.write(published), ending="")
        except (OSError, ValueError) as error:
            raise CommandError(str(error)) from error

    def _check(self, found: list[schema_snapshots.ModelChange]) -> None:
        for model, change in found:
            self.stdout.write(f"{change.level}: {model}: {change.sentence}")
        breaking = sum(change.level == "breaking" for _, change in found)
        if breaking:
            raise CommandError(f"Callers would break: {breaking} breaking changes.")
        if not found:
            self.stdout.write("Every route promises the same.")
