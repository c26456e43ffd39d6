"""Keep the plan of a host in a file of its own, so that it can restart alone."""

from pathlib import Path

import msgspec
import structlog

from inference.installation import whole_files
from inference.placement.processes import HostPlan

logger = structlog.get_logger(__name__)

_decoder = msgspec.json.Decoder(HostPlan)


def write(path: Path, plan: HostPlan) -> None:
    """Replace the plan. Raises OSError."""
    whole_files.write(path, msgspec.json.encode(plan))


def read(path: Path) -> HostPlan | None:
    """Read the plan; None if there is none, or it is not readable."""
    try:
        return _decoder.decode(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError) as error:
        logger.error("plan_unreadable", path=str(path), reason=str(error))
        return None
