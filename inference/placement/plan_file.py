"""Pass a host its plan in a file, which it keeps while there is no controller."""

from pathlib import Path

import msgspec
import structlog

from inference.installation import whole_files
from inference.placement.processes import PLAN_FORMAT, HostPlan

logger = structlog.get_logger(__name__)

_decoder = msgspec.json.Decoder(HostPlan)


def write(path: Path, plan: HostPlan) -> bool:
    """Replace the plan if it changed, safely against a power cut; return whether."""
    content = msgspec.json.encode(plan)
    try:
        if path.read_bytes() == content:
            return False
    except OSError:
        pass
    whole_files.write(path, content)
    return True


def read(path: Path) -> HostPlan | None:
    """Return the plan; None if it is missing, unreadable or of another format."""
    try:
        plan = _decoder.decode(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError) as error:
        logger.error("plan_unreadable", path=str(path), reason=str(error))
        return None
    if plan.format != PLAN_FORMAT:
        reason = f"it has format {plan.format}, and this code reads {PLAN_FORMAT}"
        logger.error("plan_unreadable", path=str(path), reason=reason)
        return None
    return plan
