"""Pass what a host reports to the controller in a file."""

from pathlib import Path

import msgspec

from inference.installation import whole_files
from inference.placement.processes import HostReport

_decoder = msgspec.json.Decoder(HostReport)


def write(path: Path, report: HostReport) -> None:
    """Replace the report; readers see the whole old or the whole new one."""
    whole_files.write(path, msgspec.json.encode(report), durable=False)


def read(path: Path) -> HostReport | None:
    """Return the report; None if it is missing or unreadable."""
    try:
        return _decoder.decode(path.read_bytes())
    except (OSError, msgspec.DecodeError):
        return None
