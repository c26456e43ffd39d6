"""`manage.py write_monitoring FOLDER`: write dashboards, rules and alerts."""

from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from config.monitoring import files


class Command(BaseCommand):
    help = "Write Grafana's dashboards and Prometheus's rules and alerts to a folder."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("folder", type=Path)
        parser.add_argument(
            "--document", type=Path, help="also fill the tables of this document"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            for name, text in files.files().items():
                path = options["folder"] / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text)
                self.stdout.write(str(path))
            if (document := options["document"]) is not None:
                document.write_text(files.filled(document.read_text()))
        except OSError as error:
            raise CommandError(f"Cannot write there: {error}.") from error
