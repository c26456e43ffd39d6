"""`modelyard check`: say what is wrong with this installation, and what mends it."""

import json
import sys
from typing import Any

from django.core.management.base import BaseCommand, CommandParser
from django.core.management.color import Style

from config.checks import running
from config.checks.finding import Finding, Level
from config.checks.running import Report

_SIGNS = {
    Level.FAULT: "✗",
    Level.WARNING: "!",
    Level.UNKNOWN: "–",
    Level.WELL: "✓",
}
_WIDTH = 16


class Command(BaseCommand):
    help = (
        "Say what is wrong with this installation, what it costs and what mends it. "
        "Exit code: 0 all is well, 1 there are warnings, 2 there are faults."
    )
    # It also says what is wrong where Django's own checks would end the command.
    requires_system_checks = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--json", action="store_true", help="Write the findings as JSON."
        )

    def handle(self, *args: Any, **options: Any) -> None:
        report = running.run()
        if options["json"]:
            self.stdout.write(json.dumps(report.as_json(), indent=2))
        else:
            self.stdout.write(_page(report, self.style))
        self.stdout.flush()
        sys.exit(report.exit_code)


def _page(report: Report, style: Style) -> str:
    lines = [f"Modelyard in {report.home}, {report.at:%Y-%m-%d %H:%M:%S} UTC", ""]
    for section in report.sections:
        for finding in section.findings:
            lines += _lines(section.title, finding, style)
    lines += ["", report.summary]
    if report.exit_code:
        lines.append("docs/troubleshooting.md says more of each.")
    return "\n".join(lines)


def _lines(title: str, finding: Finding, style: Style) -> list[str]:
    paint = {
        Level.FAULT: style.ERROR,
        Level.WARNING: style.WARNING,
        Level.WELL: style.SUCCESS,
    }.get(finding.level, str)
    lines = [f"{paint(_SIGNS[finding.level])} {title:{_WIDTH}} {finding.sentence}"]
    indent = " " * (_WIDTH + 3)
    if finding.cost:
        lines.append(f"{indent}If ignored: {finding.cost}")
    if finding.mend:
        lines.append(f"{indent}To mend it: {finding.mend}")
    return lines
