"""Pass what a host reports to the controller in a file."""

from pathlib import Path

import msgspec

from inference.installation import whole_files
from inference.placement.processes import REPORT_FORMAT, HostReport

_decoder = msgspec.json.Decoder(HostReport)


def write(path: Path, report: HostReport) -> None:
    """Replace the report; readers see the whole old or the whole new one."""
    whole_files.write(path, msgspec.json.encode(report), durable=False)


def read(path: Path) -> HostReport | None:
    """Return the report; None if it is missing, unreadable or of another format."""
    report = whole_files.read(path, _decoder)
    return report if report and report.format == REPORT_FORMAT else None
