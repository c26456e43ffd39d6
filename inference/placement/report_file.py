"""Keep the last report of a host in a file, for the controller."""

from pathlib import Path

import msgspec
import structlog

from inference.installation import whole_files
from inference.placement.processes import HostReport

logger = structlog.get_logger(__name__)

_decoder = msgspec.json.Decoder(HostReport)


def write(path: Path, report: HostReport) -> None:
    """Replace the report. Raises OSError."""
    whole_files.write(path, msgspec.json.encode(report), durable=False)


def read(path: Path) -> HostReport | None:
    """Read the report; None if there is none, or it is not readable."""
    try:
        return _decoder.decode(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError) as error:
        logger.error("report_unreadable", path=str(path), reason=str(error))
        return None
